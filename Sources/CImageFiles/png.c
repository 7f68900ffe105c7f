#ifdef QUERN_IMAGE_FILES

#include <png.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "image_files.h"

// Deflate makes at most this many bytes of one.
static const uint64_t most_inflation = 1032;

typedef struct {
  const uint8_t *bytes;
  size_t size, position;
  char *message;
  image_status status;
} source;

static void fail(png_structp png, png_const_charp message) {
  source *from = png_get_error_ptr(png);
  snprintf(from->message, 256, "%s", message);
  png_longjmp(png, 1);
}

// What libpng warns of and goes on from is of no consequence to the pixels.
static void warn(png_structp png, png_const_charp message) { (void)png, (void)message; }

static void take(png_structp png, png_bytep target, size_t count) {
  source *from = png_get_io_ptr(png);
  if (count > from->size - from->position) {
    from->position = from->size;
    png_error(png, "the file ends within a chunk");
  }
  memcpy(target, from->bytes + from->position, count);
  from->position += count;
}

static void refuse(png_structp png, source *from, image_status status, const char *message) {
  from->status = status;
  png_error(png, message);
}

static void check_size(png_structp png, png_infop info, source *from, uint64_t most) {
  const uint64_t width = png_get_image_width(png, info), height = png_get_image_height(png, info);
  const uint64_t bits = (uint64_t)png_get_channels(png, info) * png_get_bit_depth(png, info);
  char message[128];
  snprintf(message, sizeof message, "IHDR: an image of %llux%llu", (unsigned long long)width, (unsigned long long)height);
  // Both are below 2^31.
  if (width * height > most / 3) refuse(png, from, IMAGE_TOO_LARGE, message);
  if ((width * bits + 7) / 8 * height > most_inflation * from->size) {
    snprintf(
        message, sizeof message, "IHDR: an image of %llux%llu, which %zu bytes cannot hold", (unsigned long long)width,
        (unsigned long long)height, from->size);
    refuse(png, from, IMAGE_BROKEN, message);
  }
}

static void keep_texts(png_structp png, png_infop info, source *from, image_picture *picture) {
  png_textp texts = NULL;
  int count = 0;
  png_get_text(png, info, &texts, &count);
  for (int i = 0; i < count; i++) {
    const int is_utf8 = texts[i].compression == PNG_ITXT_COMPRESSION_NONE || texts[i].compression == PNG_ITXT_COMPRESSION_zTXt;
    if (texts[i].key == NULL || texts[i].text == NULL) continue;
    const size_t key = strlen(texts[i].key) + 1, text = strlen(texts[i].text) + 1;
    uint8_t *grown = realloc(picture->texts, picture->texts_size + 1 + key + text);
    if (grown == NULL) refuse(png, from, IMAGE_NO_MEMORY, "no memory for its texts");
    picture->texts = grown;
    uint8_t *end = grown + picture->texts_size;
    end[0] = is_utf8 ? 'u' : 'l';
    memcpy(end + 1, texts[i].key, key);
    memcpy(end + 1 + key, texts[i].text, text);
    picture->texts_size += 1 + key + text;
  }
}

static void keep_exif(png_structp png, png_infop info, source *from, image_picture *picture) {
  png_uint_32 size = 0;
  png_bytep exif = NULL;
  if (!png_get_eXIf_1(png, info, &size, &exif) || size == 0) return;
  picture->exif = malloc(size);
  if (picture->exif == NULL) refuse(png, from, IMAGE_NO_MEMORY, "no memory for its Exif");
  memcpy(picture->exif, exif, size);
  picture->exif_size = size;
}

static void read_all(png_structp png, png_infop info, source *from, uint64_t most, image_picture *picture, png_bytep **rows) {
  png_set_read_fn(png, from, take);
  png_set_crc_action(png, PNG_CRC_ERROR_QUIT, PNG_CRC_ERROR_QUIT);
  png_set_user_limits(png, PNG_UINT_31_MAX, PNG_UINT_31_MAX);
  png_set_chunk_malloc_max(png, 4u << 20);
  png_set_chunk_cache_max(png, 32);
  png_read_info(png, info);
  check_size(png, info, from, most);
  png_set_scale_16(png);
  png_set_packing(png);
  if (png_get_color_type(png, info) == PNG_COLOR_TYPE_PALETTE) png_set_palette_to_rgb(png);
  if (png_get_color_type(png, info) == PNG_COLOR_TYPE_GRAY) png_set_expand_gray_1_2_4_to_8(png);
  png_set_gray_to_rgb(png);
  png_set_strip_alpha(png);
  png_set_interlace_handling(png);
  png_read_update_info(png, info);
  const uint32_t width = png_get_image_width(png, info), height = png_get_image_height(png, info);
  const size_t stride = png_get_rowbytes(png, info);
  if (stride != (size_t)width * 3) refuse(png, from, IMAGE_UNSUPPORTED, "IHDR: its colours do not become RGB");
  picture->pixels = calloc(height, stride);
  *rows = malloc(height * sizeof **rows);
  if (picture->pixels == NULL || *rows == NULL) refuse(png, from, IMAGE_NO_MEMORY, "no memory for its pixels");
  for (uint32_t row = 0; row < height; row++) (*rows)[row] = picture->pixels + row * stride;
  png_read_image(png, *rows);
  png_read_end(png, info);
  keep_texts(png, info, from, picture);
  keep_exif(png, info, from, picture);
  picture->width = width;
  picture->height = height;
}

// The variables that a longjmp finds again lie outside the frame it returns to.
static int guarded(png_structp png, png_infop info, source *from, uint64_t most, image_picture *picture, png_bytep **rows) {
  if (setjmp(png_jmpbuf(png))) return 0;
  read_all(png, info, from, most, picture, rows);
  return 1;
}

image_status image_read_png(const uint8_t *bytes, size_t size, uint64_t most, image_picture *picture) {
  memset(picture, 0, sizeof *picture);
  source from = {.bytes = bytes, .size = size, .message = picture->message, .status = IMAGE_BROKEN};
  png_bytep *rows = NULL;
  png_structp png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &from, fail, warn);
  png_infop info = png == NULL ? NULL : png_create_info_struct(png);
  int is_read = 0;
  if (info == NULL) {
    from.status = IMAGE_NO_MEMORY;
    snprintf(picture->message, sizeof picture->message, "no memory for libpng");
  } else {
    is_read = guarded(png, info, &from, most, picture, &rows);
  }
  free(rows);
  png_destroy_read_struct(&png, &info, NULL);
  picture->offset = from.position;
  if (is_read) return IMAGE_OK;
  free(picture->pixels);
  free(picture->texts);
  free(picture->exif);
  picture->pixels = picture->texts = picture->exif = NULL;
  return from.status;
}

typedef struct {
  uint8_t *bytes;
  size_t size, capacity;
  char *message;
} sink;

static void fail_writing(png_structp png, png_const_charp message) {
  sink *to = png_get_error_ptr(png);
  snprintf(to->message, 256, "%s", message);
  png_longjmp(png, 1);
}

static void put(png_structp png, png_bytep from, size_t count) {
  sink *to = png_get_io_ptr(png);
  if (count > to->capacity - to->size) {
    const size_t capacity = (to->size + count) * 2;
    uint8_t *grown = realloc(to->bytes, capacity);
    if (grown == NULL) png_error(png, "no memory for the file");
    to->bytes = grown;
    to->capacity = capacity;
  }
  memcpy(to->bytes + to->size, from, count);
  to->size += count;
}

static void flush(png_structp png) { (void)png; }

static int write_guarded(
    png_structp png, png_infop info, sink *to, const uint8_t *pixels, uint32_t width, uint32_t height, const image_text *texts,
    size_t text_count) {
  if (setjmp(png_jmpbuf(png))) return 0;
  png_set_write_fn(png, to, put, flush);
  png_set_IHDR(
      png, info, width, height, 8, PNG_COLOR_TYPE_RGB, PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT,
      PNG_FILTER_TYPE_DEFAULT);
  for (size_t i = 0; i < text_count; i++) {
    // libpng copies what it is given here.
    png_text text = {
        .compression = texts[i].is_utf8 ? PNG_ITXT_COMPRESSION_NONE : PNG_TEXT_COMPRESSION_NONE,
        .key = (png_charp)texts[i].key,
        .text = (png_charp)texts[i].text,
    };
    png_set_text(png, info, &text, 1);
  }
  png_write_info(png, info);
  for (uint32_t row = 0; row < height; row++) png_write_row(png, pixels + (size_t)row * width * 3);
  png_write_end(png, info);
  return 1;
}

image_status image_write_png(
    const uint8_t *pixels, uint32_t width, uint32_t height, const image_text *texts, size_t text_count, uint8_t **bytes,
    size_t *size, char message[256]) {
  sink to = {.message = message};
  png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, &to, fail_writing, warn);
  png_infop info = png == NULL ? NULL : png_create_info_struct(png);
  int is_written = 0;
  if (info == NULL) {
    snprintf(message, 256, "no memory for libpng");
  } else {
    is_written = write_guarded(png, info, &to, pixels, width, height, texts, text_count);
  }
  png_destroy_write_struct(&png, &info);
  if (!is_written) {
    free(to.bytes);
    return IMAGE_BROKEN;
  }
  *bytes = to.bytes;
  *size = to.size;
  return IMAGE_OK;
}

void image_free(void *memory) { free(memory); }

#else

typedef int quern_without_image_files;

#endif

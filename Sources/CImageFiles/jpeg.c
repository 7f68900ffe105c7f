#ifdef QUERN_IMAGE_FILES

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// These two come behind stdio.h, which jpeglib.h expects.
#include <jpeglib.h>

#include <jerror.h>

#include "image_files.h"

// A progressive file may go over its image again and again; no encoder comes near this.
static const int most_scans = 100;

typedef struct {
  struct jpeg_decompress_struct jpeg;
  struct jpeg_error_mgr errors;
  struct jpeg_progress_mgr progress;
  jmp_buf jump;
  image_picture *picture;
  image_status status;
} reader;

static void fail(j_common_ptr jpeg) {
  reader *state = jpeg->client_data;
  // The buffer that libjpeg expects, JMSG_LENGTH_MAX, is shorter than that of a message.
  state->errors.format_message(jpeg, state->picture->message);
  longjmp(state->jump, 1);
}

static void refuse(reader *state, image_status status, const char *message) {
  state->status = status;
  snprintf(state->picture->message, sizeof state->picture->message, "%s", message);
  longjmp(state->jump, 1);
}

// Warnings are of data that libjpeg makes up for, but for those that lose no pixel.
static void emit(j_common_ptr jpeg, int level) {
  if (level >= 0) return;
  switch (jpeg->err->msg_code) {
    case JWRN_EXTRANEOUS_DATA:
    case JWRN_ADOBE_XFORM:
    case JWRN_JFIF_MAJOR:
      return;
    default:
      fail(jpeg);
  }
}

static void count_scans(j_common_ptr jpeg) {
  reader *state = jpeg->client_data;
  if (state->jpeg.input_scan_number > most_scans) refuse(state, IMAGE_BROKEN, "SOS: has too many scans");
}

static void check_size(reader *state, size_t size, uint64_t most) {
  const uint64_t width = state->jpeg.image_width, height = state->jpeg.image_height;
  char message[128];
  snprintf(message, sizeof message, "SOF: an image of %llux%llu", (unsigned long long)width, (unsigned long long)height);
  if (width * height > most / 3) refuse(state, IMAGE_TOO_LARGE, message);
  // Each block has a bit at least, unless they are coded arithmetically.
  if (!state->jpeg.arith_code && (width + 7) / 8 * ((height + 7) / 8) > (uint64_t)size * 8) {
    snprintf(
        message, sizeof message, "SOF: an image of %llux%llu, which %zu bytes cannot hold", (unsigned long long)width,
        (unsigned long long)height, size);
    refuse(state, IMAGE_BROKEN, message);
  }
}

static void keep_exif(reader *state) {
  for (jpeg_saved_marker_ptr marker = state->jpeg.marker_list; marker != NULL; marker = marker->next) {
    if (marker->data_length <= 6 || memcmp(marker->data, "Exif\0", 6) != 0) continue;
    state->picture->exif_size = marker->data_length - 6;
    state->picture->exif = malloc(state->picture->exif_size);
    if (state->picture->exif == NULL) refuse(state, IMAGE_NO_MEMORY, "no memory for its Exif");
    memcpy(state->picture->exif, marker->data + 6, state->picture->exif_size);
    return;
  }
}

static void read_all(reader *state, const uint8_t *bytes, size_t size, uint64_t most) {
  j_decompress_ptr jpeg = &state->jpeg;
  image_picture *picture = state->picture;
  jpeg_create_decompress(jpeg);
  jpeg->client_data = state;
  state->progress.progress_monitor = count_scans;
  jpeg->progress = &state->progress;
  jpeg_mem_src(jpeg, (unsigned char *)bytes, size);
  jpeg_save_markers(jpeg, JPEG_APP0 + 1, 0xFFFF);
  jpeg_read_header(jpeg, TRUE);
  check_size(state, size, most);
  if (jpeg->num_components != 1 && jpeg->num_components != 3)
    refuse(state, IMAGE_UNSUPPORTED, "SOF: neither grey nor of three colours; CMYK is not supported");
  keep_exif(state);
  jpeg->out_color_space = JCS_RGB;
  jpeg_start_decompress(jpeg);
  const size_t stride = (size_t)jpeg->output_width * 3;
  if (jpeg->output_components != 3) refuse(state, IMAGE_UNSUPPORTED, "SOF: its colours do not become RGB");
  picture->pixels = calloc(jpeg->output_height, stride);
  if (picture->pixels == NULL) refuse(state, IMAGE_NO_MEMORY, "no memory for its pixels");
  while (jpeg->output_scanline < jpeg->output_height) {
    JSAMPROW row = picture->pixels + jpeg->output_scanline * stride;
    jpeg_read_scanlines(jpeg, &row, 1);
  }
  jpeg_finish_decompress(jpeg);
  picture->width = jpeg->output_width;
  picture->height = jpeg->output_height;
}

static int guarded(reader *state, const uint8_t *bytes, size_t size, uint64_t most) {
  if (setjmp(state->jump)) return 0;
  read_all(state, bytes, size, most);
  return 1;
}

image_status image_read_jpeg(const uint8_t *bytes, size_t size, uint64_t most, image_picture *picture) {
  memset(picture, 0, sizeof *picture);
  reader *state = calloc(1, sizeof *state);
  if (state == NULL) return IMAGE_NO_MEMORY;
  state->picture = picture;
  state->status = IMAGE_BROKEN;
  state->jpeg.err = jpeg_std_error(&state->errors);
  state->jpeg.client_data = state;
  state->errors.error_exit = fail;
  state->errors.emit_message = emit;
  const int is_read = guarded(state, bytes, size, most);
  const struct jpeg_source_mgr *from = state->jpeg.src;
  // At the end of the bytes libjpeg reads from a buffer of its own.
  if (from != NULL && from->next_input_byte >= bytes && from->next_input_byte <= bytes + size)
    picture->offset = (size_t)(from->next_input_byte - bytes);
  else
    picture->offset = size;
  jpeg_destroy_decompress(&state->jpeg);
  const image_status status = is_read ? IMAGE_OK : state->status;
  free(state);
  if (is_read) return status;
  free(picture->pixels);
  free(picture->exif);
  picture->pixels = picture->exif = NULL;
  return status;
}

#else

typedef int quern_without_image_files;

#endif

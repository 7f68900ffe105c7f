// PNG and JPEG through libpng and libjpeg, whose error handling by longjmp stays behind these functions.
#ifndef IMAGE_FILES_H
#define IMAGE_FILES_H

#include <stddef.h>
#include <stdint.h>

typedef enum { IMAGE_OK, IMAGE_BROKEN, IMAGE_UNSUPPORTED, IMAGE_TOO_LARGE, IMAGE_NO_MEMORY } image_status;

typedef struct {
  // Kept for the caller to free with image_free: width x height x 3 bytes.
  uint8_t *pixels;
  uint32_t width, height;
  // Entries of a PNG, each: 'u' for UTF-8 or 'l' for Latin-1, its key, 0, its text, 0. Freed with image_free.
  uint8_t *texts;
  size_t texts_size;
  // The first APP1 segment of a JPEG that holds Exif, from its byte order on, or the eXIf chunk of a PNG. Freed with image_free.
  uint8_t *exif;
  size_t exif_size;
  // Of a failure: how far the bytes had been read, and what is wrong.
  size_t offset;
  char message[256];
} image_picture;

// Reads `size` bytes. More than `most` samples, three a pixel, are refused before memory is taken for them, and so is an image that so
// few bytes cannot hold. Alpha is dropped; 16 bits are rounded to 8. Nothing is kept after a failure.
image_status image_read_png(const uint8_t *bytes, size_t size, uint64_t most, image_picture *picture);
image_status image_read_jpeg(const uint8_t *bytes, size_t size, uint64_t most, image_picture *picture);

typedef struct {
  const char *key;
  const char *text;
  // As UTF-8 in an iTXt chunk, else as Latin-1 in a tEXt chunk.
  int is_utf8;
} image_text;

// An RGB image of 8 bits as a PNG in memory that image_free frees.
image_status image_write_png(
    const uint8_t *pixels, uint32_t width, uint32_t height, const image_text *texts, size_t text_count, uint8_t **bytes,
    size_t *size, char message[256]);

void image_free(void *memory);

#endif

// Images as operands, channels last or first.
#ifndef IMAGE_H
#define IMAGE_H

#include "check.h"

// [batch, channels, h, w] by strides. Channels last may have columns beyond w, which hold NaN and are not to be touched.
typedef struct image {
  operand *at;
  size_t batch, channels, h, w, spare;
  size_t bs, cs, hs, ws;
} image;

image image_of(test *t, ck_dtype type, int channels_last, size_t batch, size_t channels, size_t h, size_t w);
// Fails where a column beyond w was written.
void check_spare(test *t, const image *m);

static inline size_t offset_of(const image *m, size_t b, size_t c, size_t i, size_t j) {
  return b * m->bs + c * m->cs + i * m->hs + j * m->ws;
}
static inline double pixel(const image *m, size_t b, size_t c, size_t i, size_t j) {
  return element(m->at, 0, offset_of(m, b, c, i, j));
}
static inline void check_pixel(test *t, const image *m, size_t b, size_t c, size_t i, size_t j, double expected, double bound) {
  check_element(t, m->at, 0, offset_of(m, b, c, i, j), expected, bound);
}

#endif

// Convolution drivers: images [batch, height, width, channels] or [batch, channels, height, width], weights packed once.
#ifndef CK_CONV_H
#define CK_CONV_H

#include "ck_tile.h"

// One spatial axis. Positions: output * stride + tap * dilation - padding = input, or with the two exchanged when transposed.
typedef struct ck_conv_axis {
  size_t input, output, kernel, stride, dilation;
  size_t padding;  // before the first position; that after the last follows from `output`
} ck_conv_axis;

// Where elements of an image lie, in elements: channels_last has channel 1, else pixel is 1.
typedef struct ck_conv_strides {
  size_t image, row, pixel, channel;
} ck_conv_strides;

// One group: y = activation(scale conv(x) + bias + add) + residual.
// The K of a product runs over taps, then channels. The order of taps: rows then columns; transposed, by the classes
// (tap row * dilation % stride, tap column * dilation % stride) first, so that every output position has its taps in one run.
typedef struct ck_conv {
  size_t batch, channels, outputs;  // of the group
  ck_conv_axis h, w;
  int32_t transposed, channels_last;
  int32_t doubled;  // row and column i of the image that is read are i / 2 of x: `input`, odd or even, is twice the size of x
  const void *x;  // [batch, h.input, w.input, channels] by strides; doubled, [batch, (h.input + 1) / 2, (w.input + 1) / 2, ...]
  ck_conv_strides x_s;
  const void *weights;  // ck_f32_conv: panels of ck_pack_b, [K, outputs]; ck_f32_depthwise: [taps][outputs]
  ck_tile_range weights_range;  // of ck_packed_range, least 0: not known
  void *y;  // [batch, h.output, w.output, outputs] by strides
  ck_conv_strides y_s;
  float scale;
  const float *bias;  // [outputs] or NULL
  const void *add;  // [batch, outputs] or NULL, rows add_rs apart
  size_t add_rs;
  ck_activation activation;
  const void *residual;  // the shape of y or NULL; may be y exactly
  ck_conv_strides residual_s;
  ck_dtype x_type, weights_type, y_type, add_type, residual_type;
  int32_t winograd;  // whether its sums may be Winograd's, where that pays
  ck_split split;  // what may go through tiles, where the table has them
} ck_conv;

// Both return 0, or -1 when scratch memory cannot be had (then y is untouched).
int32_t ck_f32_conv(const ck_kernels *table, const ck_conv *call, size_t threads);
// Every channel by itself: outputs a multiple of channels, output o reads channel o / (outputs / channels). Not transposed, not
// doubled.
int32_t ck_f32_depthwise(const ck_kernels *table, const ck_conv *call, size_t threads);
// Winograd's F(4, 3), where it can be: 3 x 3 taps at stride 1, not dilated nor transposed, channels last. Of a doubled image that
// keeps its size, by differences of its pixels: as many products, fewer roundings.
int ck_winograd_can(const ck_conv *call);
int32_t ck_f32_winograd(const ck_kernels *table, const ck_conv *call, size_t threads);
// By tiles, in plain C where the table has none: not transposed, channels last, pixels of y and of the residual at one distance.
// ck_f32_conv calls it where that pays.
int ck_tile_conv_can(const ck_conv *call);
int32_t ck_tile_conv(const ck_kernels *table, const ck_conv *call, size_t threads);
// to[batch, outputs] = bias + add, for the drivers: what an image adds to every pixel.
void ck_conv_biases(const ck_kernels *table, const ck_conv *call, float *to);

// Pixels of one row that see the same taps: y = activation(scale sum + bias) + residual for n channels each.
typedef struct ck_depthwise_run {
  size_t pixels, n, taps_h, taps_w;
  const float *x;  // pixel 0, tap (0, 0), channel 0; channels lie together
  size_t x_ps, x_ths, x_tws;  // from pixel to pixel, tap row to tap row, tap to tap
  const float *weights;  // [n] for tap (0, 0)
  size_t w_ths, w_tws;
  float *y;  // [pixels, n]
  size_t y_ps;
  float scale;
  const float *bias;  // [n] or NULL
  ck_activation activation;
  const float *residual;  // [pixels, n] or NULL; may equal y exactly
  size_t residual_ps;
} ck_depthwise_run;

// A square of 4 x 4 pixels of y, of a doubled image 2 x 2: y[i] = activation(scale A^T m A + bias) + residual[i] for n channels.
typedef struct ck_winograd_tile {
  size_t n;
  const float *m;  // [36][n], doubled [9][n], m_fs apart
  size_t m_fs;
  void *y[16];  // [n] of y_type each; NULL beyond the image
  const void *residual[16];  // [n] of residual_type or NULL; may equal y exactly
  ck_dtype y_type, residual_type;
  float scale;
  const float *bias;  // [n] or NULL
  ck_activation activation;
} ck_winograd_tile;

#endif

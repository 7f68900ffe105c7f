// Images, [batch, height, width, channels] (channels last) or [batch, channels, height, width]: pooling, resizing, padding and
// GroupNorm. Strides are in elements; channels last have unit channel stride, else columns have unit stride.
#ifndef CK_IMAGE_H
#define CK_IMAGE_H

#include "ck_types.h"

typedef enum ck_border { CK_BORDER_CONSTANT = 0, CK_BORDER_REFLECT = 1, CK_BORDER_REPLICATE = 2 } ck_border;

// Where one output row or column comes from: (1 - second_weight) x[first] + second_weight x[second].
typedef struct ck_taps {
  int32_t *first;   // [count] or -1 for a constant
  int32_t *second;  // [count]
  float *first_weight, *second_weight;
} ck_taps;

// One call: every kernel takes this struct and uses the fields it names. x and y do not overlap.
typedef struct ck_image {
  size_t batch, channels, x_h, x_w, y_h, y_w;
  int32_t channels_last;
  const void *x;  // element (b, c, i, j) at b * x_bs + c * x_cs + i * x_hs + j * x_ws
  size_t x_bs, x_cs, x_hs, x_ws;
  void *y;
  size_t y_bs, y_cs, y_hs, y_ws;
  ck_dtype x_type, y_type;         // resize_nearest and pad copy: the same type
  size_t kernel_h, kernel_w;       // pooling
  size_t stride_h, stride_w;       // pooling
  size_t dilation_h, dilation_w;   // max pooling; 1 for averages
  size_t pad_h, pad_w;             // rows above and columns left of x: pooling and pad
  int32_t include_pad;             // average: divide by the whole window, else by the elements of x in it
  int32_t align_corners;           // bilinear: corner elements map to corner elements, else half-pixel centres
  ck_border border;                // pad; reflect needs borders below the image's size, replicate an image that is not empty
  float value;                     // pad: the constant
  size_t channel_block;            // set by ck_image_run: channels of a row that one item does, where channels are last
  ck_taps row_taps, column_taps;   // set by ck_image_run: resizing, pad; first_weight also an average's column counts
  float *scratch;                  // set by ck_image_run: scratch_size floats for every participant
  size_t scratch_size;
} ck_image;

// y = norm(x) weight + bias, then the activation; mean and variance over the pixels of channels / groups channels.
typedef struct ck_group_norm {
  size_t batch, channels, h, w, groups;  // channels a multiple of groups
  int32_t channels_last;
  const void *x;  // element (b, c, i, j) at b * x_bs + c * x_cs + i * x_hs + j * x_ws
  size_t x_bs, x_cs, x_hs, x_ws;
  void *y;        // may equal x exactly, with the same type and strides
  size_t y_bs, y_cs, y_hs, y_ws;
  const float *weight;  // [channels] or NULL
  const float *bias;    // [channels] or NULL
  float epsilon;
  ck_activation activation;
  ck_dtype x_type, y_type;
} ck_group_norm;

// Sums of `rows` rows of n elements, for each of `groups` equal ranges of columns. out holds 3 floats a group: a value m near the
// mean, sum(x - m), sum((x - m)^2). The rows should stay in cache: they are read twice.
typedef struct ck_group_moments {
  size_t rows, n, groups;
  const void *x;  // [rows, n]
  size_t x_rs;
  ck_dtype x_type;
  float *out;      // [groups, 3]
  float *scratch;  // CK_GROUP_ARRAYS arrays of n floats; unused by one row of one group
} ck_group_moments;
#define CK_GROUP_ARRAYS 3

// y = activation((x - mean) scale + bias) on [rows, n], the three a value a column, or a value for all.
typedef struct ck_group_affine {
  size_t rows, n;
  const float *x;  // [rows, n]
  size_t x_rs;
  float *y;        // [rows, n]; may equal x exactly
  size_t y_rs;
  const float *mean, *scale, *bias;  // [n], or one value where `uniform`
  int32_t uniform;
  ck_activation activation;
} ck_group_affine;

// A kernel of a table, on every output row: 0, or -1 when scratch memory cannot be had (then nothing is written).
typedef void (*ck_image_kernel)(const ck_image *call, size_t first, size_t last);
int32_t ck_image_run(const ck_kernels *table, ck_image_kernel kernel, const ck_image *call, size_t threads);
// 0, or -1 when scratch memory cannot be had (then y is untouched).
int32_t ck_f32_group_norm(const ck_kernels *table, const ck_group_norm *call, size_t threads);

#endif

// Routing: the largest elements of rows, and rows added where indices say.
#ifndef CK_ROUTING_H
#define CK_ROUTING_H

#include "ck_types.h"

// The k largest elements of each row, largest first; of equal ones the lower index first; NaN above everything, -0 equal to 0.
typedef struct ck_top_k {
  size_t rows, n, k;  // k <= n <= 2^31 - 1
  const void *x;      // [rows, n] of x_type
  size_t x_rs;
  void *values;       // [rows, k] of value_type
  size_t values_rs;
  int32_t *indices;   // [rows, k] contiguous
  ck_dtype x_type, value_type;
} ck_top_k;

// 0, or -1 when scratch memory cannot be had (then nothing is written).
int32_t ck_f32_top_k(const ck_kernels *table, const ck_top_k *call, size_t threads);

// y[ids[i]] += weights[i] x[i] for i ascending, in f32 with one rounding to y's type at the end.
typedef struct ck_scatter_add {
  size_t rows, n, y_rows;  // rows <= 2^31 - 1
  const void *x;           // [rows, n] of x_type
  size_t x_rs;
  const int32_t *ids;      // [rows], each in 0 ..< y_rows, repeats allowed
  const float *weights;    // [rows] or NULL: ones
  void *y;                 // [y_rows, n] of y_type; rows that no id names are not touched
  size_t y_rs;
  ck_dtype x_type, y_type;
} ck_scatter_add;

// Rows [first, last) of y by columns [column, column + columns), from rows sources[offsets[i] ..< offsets[i + 1]] of x each.
typedef struct ck_scatter_piece {
  const int32_t *sources;  // [rows] rows of x by destination, ascending for each
  const int32_t *offsets;  // [y_rows + 1]
  size_t first, last, column, columns;
} ck_scatter_piece;

// 0, or -1 when scratch memory cannot be had (then y is untouched).
int32_t ck_f32_scatter_add(const ck_kernels *table, const ck_scatter_add *call, size_t threads);

#endif

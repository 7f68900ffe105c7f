// Data movement and reductions: copies between any layouts and types, reductions along the first axis, positions of extremes.
#ifndef CK_DATA_H
#define CK_DATA_H

#include "ck_types.h"

// y = x, element by element, each with strides and a type of its own. Equal types keep their bits; else f32 lies between.
#define CK_COPY_RANK 4
typedef struct ck_copy {
  size_t extents[CK_COPY_RANK];  // ones in front where the rank is less
  const void *x;                 // [extents]
  size_t x_strides[CK_COPY_RANK];  // in elements; 0 repeats
  ck_dtype x_type;
  void *y;                         // [extents]; overlaps x nowhere
  size_t y_strides[CK_COPY_RANK];  // no two elements share a place
  ck_dtype y_type;
} ck_copy;
void ck_copy_run(const ck_kernels *table, const ck_copy *call, size_t threads);

// `variant` of a ck_rows call of f32_binary.
typedef enum ck_binary {
  CK_SUBTRACT = 0,
  CK_DIVIDE = 1,
  CK_MAXIMUM = 2,  // NaN where either is
  CK_MINIMUM = 3,
} ck_binary;

// `variant` of a ck_rows call of f32_reduce and f32_reduce_columns. Without elements: 0, NaN, 0, -inf, inf, -inf.
typedef enum ck_reduction {
  CK_SUM = 0,
  CK_MEAN = 1,
  CK_SUM_SQUARES = 2,
  CK_MAX = 3,  // NaN where any is, here and in CK_MIN
  CK_MIN = 4,
  CK_LOG_SUM_EXP = 5,
} ck_reduction;

// y[n] = the reduction of each column of x [rows, n], by `variant`; any types. Columns are cut, never a sum.
void ck_reduce_columns(const ck_kernels *table, const ck_rows *call, size_t threads);

// y[i] = the first column of row i that holds its largest element, or its least; a NaN is either.
typedef struct ck_extreme {
  size_t rows, n;  // n >= 1
  const void *x;   // [rows, n]
  size_t x_rs;
  ck_dtype x_type;
  int32_t least;
  int32_t *y;  // [rows]
} ck_extreme;
void ck_argmax(const ck_kernels *table, const ck_extreme *call, size_t threads);

#endif

// Row kernels: what a definition in double is given, and which fields of ck_rows a kernel uses.
#ifndef ROWS_H
#define ROWS_H

#include "check.h"

// One row of a call in double. The definition fills y (and z), and how far a kernel may be from them before it stores.
typedef struct row {
  const ck_rows *call;  // for its scalars and its index
  size_t i, n, x_n;     // row i of n columns; x has x_n
  const double *x;      // [x_n]; with TABLE or SEGMENTS the first of all rows of x
  const double *other, *weight, *bias;  // [n], or NULL
  const double *held;   // [n] y before the call
  double *y, *y_error, *z, *z_error;    // [n]
} row;

// A MAYBE operand is there in some cases and NULL in others.
enum {
  OTHER = 1,
  MAYBE_OTHER = 2,
  MAYBE_WEIGHT = 4,
  MAYBE_BIAS = 8,
  SCALE = 16,
  EPSILON = 32,
  DIAGONAL = 64,
  ACTIVATION = 128,
  ONE_ROW = 256,      // other_rs may be 0
  IN_PLACE = 512,     // y may be x
  TABLE = 1024,       // index: rows of x
  SEGMENTS = 2048,    // index: [rows + 1] offsets into x
  ACCUMULATE = 4096,  // adds to y
  SECOND = 8192,      // may write z where there is an `other`; z may be x or that
  POWER = 16384,
  VARIANT = 32768,
  REDUCES = 65536,    // a row of x becomes one element
  BOUNDS = 131072,    // low and high
  MASKS = 262144,     // half of `other` is 0
};

typedef void (*row_definition)(const row *r);
void check_rows(test *t, int32_t fields, ck_rows_kernel kernel, row_definition definition);

#endif

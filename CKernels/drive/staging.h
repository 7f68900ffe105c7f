// Blocks of operands as floats: drivers whose kernels read and write f32 copy what is stored otherwise through scratch.
#ifndef CK_STAGING_H
#define CK_STAGING_H

#include "../include/ck_kernels.h"

// Element `offset` of elements of a type.
static inline const void *staging_element(ck_dtype type, const void *x, size_t offset) {
  return (const char *)x + offset * ck_dtype_size(type);
}

// Element (i, j) of rows of elements of a type.
static inline const void *staging_at(ck_dtype type, const void *x, size_t rs, size_t i, size_t j) {
  return staging_element(type, x, i * rs + j);
}

// to[r * to_rs + c] = x(i + r, j + c) for r < m and c < n.
static inline void staging_in(const ck_kernels *table, ck_dtype type, const void *x, size_t rs, size_t i, size_t j, size_t m,
                              size_t n, float *to, size_t to_rs) {
  for (size_t r = 0; r < m; r++) table->f32_widen(type, n, staging_at(type, x, rs, i + r, j), to + r * to_rs);
}

// y(i + r, j + c) = from[r * from_rs + c], rounded to y's type.
static inline void staging_out(const ck_kernels *table, ck_dtype type, const float *from, size_t from_rs, size_t m, size_t n,
                               void *y, size_t rs, size_t i, size_t j) {
  for (size_t r = 0; r < m; r++) table->f32_narrow(type, n, from + r * from_rs, (void *)staging_at(type, y, rs, i + r, j));
}

#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))

static inline size_t round_up(size_t x, size_t unit) { return (x + unit - 1) / unit * unit; }
static inline size_t pieces_of(size_t x, size_t size) { return x ? (x - 1) / size + 1 : 0; }

// x cut into the fewest equal pieces of at most `most`, as a multiple of `unit`.
static inline size_t balanced(size_t x, size_t most, size_t unit) {
  const size_t pieces = MAX(pieces_of(x, most), 1);
  return MAX(round_up(pieces_of(x, pieces), unit), unit);
}

#endif

// Positions: rotary embedding, and the cache of keys and values that a decoder appends to.
#ifndef CK_POSITION_H
#define CK_POSITION_H

#include "ck_types.h"

// y = x with pairs of each head turned by the angles of the token's position (Su et al., RoFormer):
//   (a, b) becomes (a cos - b sin, b cos + a sin)
// Pairs are elements j and j + rotary / 2 of a head, or, interleaved, 2 j and 2 j + 1. Elements from `rotary` on are copied.
typedef struct ck_rope {
  size_t tokens, heads, size, rotary;  // rotary even, at most size
  int32_t interleaved;
  const int32_t *positions;            // [tokens] rows of the table
  const float *table;                  // [positions, rotary]: rotary / 2 cosines, then rotary / 2 sines
  size_t table_rs;
  const float *x;                      // row t, head h at x[t * x_rs + h * x_hs]
  size_t x_rs, x_hs;
  float *y;                            // may equal x exactly, with its strides and type
  size_t y_rs, y_hs;
  ck_dtype x_type, y_type;             // pointers are to elements of these types; strides count elements
} ck_rope;

void ck_f32_rope(const ck_kernels *table, const ck_rope *call, size_t threads);

// Rows of new keys, or values, written behind those a cache holds: row offsets[s] + i of x becomes row lengths[s] + i of
// sequence s of the cache.
typedef struct ck_append {
  size_t sequences, heads, size;
  const int32_t *offsets;      // [sequences + 1] first row of x of each sequence
  const int32_t *lengths;      // [sequences] rows the cache holds of each
  const float *x;              // row t, head h at x[t * x_rs + h * x_hs]
  size_t x_rs, x_hs;
  float *cache;                // sequence s, row t, head h at cache[s * cache_ss + t * cache_rs + h * cache_hs]
  size_t cache_ss, cache_rs, cache_hs;
  ck_dtype x_type, cache_type;  // pointers are to elements of these types; strides count elements
  float *scales;                // where the cache is CK_I8: of its vectors, at s * scale_ss + t * scale_rs + h * scale_hs
  size_t scale_ss, scale_rs, scale_hs;
} ck_append;

void ck_cache_append(const ck_kernels *table, const ck_append *call, size_t threads);

#endif

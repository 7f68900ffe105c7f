// Products of int8 codes, summed exactly in int32: rows of activations coded as they come, weights coded once by column.
#ifndef CK_INT8_H
#define CK_INT8_H

#include "ck_types.h"

// A value is its code times a scale: the largest magnitude of its row, or column, over 127. Codes are rounded to nearest even. A
// row or column that is not finite throughout has NaN for a scale. Sums are the same on every instruction set.
#define CK_INT8_COLUMNS 32           // of a panel of weights
#define CK_INT8_STEP 64              // k is padded to a multiple of this
#define CK_INT8_MOST_DEPTH (1 << 17)  // of k: sums of 127^2 stay within int32

// At most CK_TILE_EDGE rows: c = act(alpha sum a_scale b_scale + bias) + residual. `block` as for ck_tile_block; k, beta are not
// read.
typedef struct ck_int8_block {
  const ck_gemm_block *block;
  size_t steps;           // k/CK_INT8_STEP
  const int8_t *a;        // [m/16][steps][16][64]: what rows beyond m hold does not matter; 16s come in twos
  const float *a_scales;  // [m]
  const int8_t *b;        // [n/32][steps * 16][32][4], zero-padded
  const float *b_scales;  // [n]
} ck_int8_block;

static inline size_t ck_int8_steps(size_t k) { return (k + CK_INT8_STEP - 1) / CK_INT8_STEP; }
// Row i of a block's a.
static inline int8_t *ck_int8_row(int8_t *a, size_t steps, size_t i) { return a + (i / 16 * steps * 16 + i % 16) * CK_INT8_STEP; }

// c = act(alpha a W + bias) + residual by codes of a and W; with codes of V, act(alpha a W + bias) (alpha a V + value_bias) +
// residual.
typedef struct ck_int8 {
  size_t m, n, k;         // k <= CK_INT8_MOST_DEPTH
  const void *a;          // [m, k] of a_type
  size_t a_rs;
  const int8_t *codes;    // ck_int8_pack's
  const float *scales;    // [n], ck_int8_pack's
  const int8_t *value;    // V as `codes` are, or NULL
  const float *value_scales, *value_bias;  // [n]; the bias may be NULL
  void *c;                // [m, n] of c_type
  size_t c_rs;
  float alpha;
  const float *bias;      // [n] or NULL
  const void *residual;   // [m, n] of residual_type or NULL; may be c exactly
  size_t residual_rs;
  ck_activation activation;
  ck_dtype a_type, c_type, residual_type;
} ck_int8;

// Bytes of the codes of W [k, n], 64-byte aligned.
size_t ck_int8_packed_bytes(size_t n, size_t k);
// W(p, j) = w[j * w_rs + p] of `type` to panels [n/32][k/4][32][4] and scales [n]. 0, or -1 when scratch memory cannot be had
// (then nothing is written).
int32_t ck_int8_pack(const ck_kernels *table, size_t n, size_t k, ck_dtype type, const void *w, size_t w_rs, int8_t *codes,
                     float *scales, size_t threads);
// 0, or -1 when scratch memory cannot be had (then c is untouched).
int32_t ck_int8_gemm(const ck_kernels *table, const ck_int8 *call, size_t threads);

#endif

// Whole operations: blocking, packing and threading around the kernels of a table. Preconditions are the caller's.
#ifndef CK_DRIVE_H
#define CK_DRIVE_H

#include "ck_kernels.h"

// C = epilogue(alpha A B + beta C) for `batch` independent products; with `value`, C = act(alpha A B + bias) (alpha A V +
// value_bias)
// + residual, of which A is read once and the factors never leave a block.
typedef struct ck_gemm {
  size_t batch, m, n, k;
  const float *a;  // [batch, m, k]: element (z, i, p) at a[z * a_bs + i * a_rs + p * a_cs]
  size_t a_bs, a_rs, a_cs;
  const float *b;  // [batch, k, n]: element (z, p, j) at b[z * b_bs + p * b_rs + j * b_cs]; unused with `packed`
  size_t b_bs, b_rs, b_cs;
  const void *packed;  // panels of b_type, as ck_pack_b makes them, shared by every batch; or NULL
  size_t packed_panel;  // elements from panel to panel of `packed` and `value`; 0: NR k, else they begin within deeper panels
  const void *value;   // V as `packed` is, or NULL; with it there are panels, batch is 1 and beta 0
  const float *value_bias;  // [n] or NULL
  float *c;             // [batch, m, n], unit column stride
  size_t c_bs, c_rs;
  float alpha, beta;
  const float *bias;      // [n] or NULL
  const float *residual;  // [batch, m, n] or NULL; may equal c exactly
  size_t residual_bs, residual_rs;
  ck_activation activation;
  ck_dtype a_type, b_type, c_type, residual_type;  // what the pointers are to; b_type is also that of `packed`
  ck_split split;  // what may go through tiles, where the table has them
  int32_t x8;      // A by quantised weights: in 8-bit codes, where the table's products of bytes pay; else in 16-bit codes
  ck_tile_range packed_range, value_range;  // of `packed` and `value`, of ck_packed_range; least 0: not known
} ck_gemm;

// Elements of a packed [k, n] matrix: ceil(n / NR) * NR * k.
size_t ck_f32_packed_size(const ck_kernels *table, size_t n, size_t k);
// Packs B[p, j] = b[p * b_ks + j * b_ns], of f32 or of 16 bits, into panels of the same type as ck_types.h has them,
// zero-padded.
void ck_pack_b(const ck_kernels *table, ck_dtype type, size_t n, size_t k, const void *b, size_t b_ks, size_t b_ns, void *packed,
               size_t threads);
// The magnitudes of such panels of bf16, which spare products in tiles a look at each; least 0 where the table has no use for
// them.
ck_tile_range ck_packed_range(const ck_kernels *table, size_t n, size_t k, const void *packed, size_t threads);
// Bytes of elements of a quantised format in ggml's blocks.
size_t ck_quantized_bytes(ck_dtype type, size_t elements);
// Packs B of a quantised format: ggml's blocks of its transpose [n, k], k a multiple of ck_quant_unit, to
// ck_packed_bytes(type, ceil(n / NR) NR k) bytes.
void ck_pack_quantized(const ck_kernels *table, ck_dtype type, size_t n, size_t k, const void *blocks, void *packed,
                       size_t threads);
// 0, or -1 when scratch memory cannot be had (then C is untouched). A has unit column stride where `packed` is quantised.
int32_t ck_f32_gemm(const ck_kernels *table, const ck_gemm *call, size_t threads);
// The same in tiles, whatever its size and the table: a_cs is 1, and quantised weights are rounded as f32 ones are. ck_f32_gemm
// calls it where that pays.
int32_t ck_tile_gemm(const ck_kernels *table, const ck_gemm *call, size_t threads);

// A product with a low-rank update: c = act(alpha a B + scale (a D) U + bias) + residual. `base` is the whole call with batch 1,
// unit a_cs and beta 0, its B zero where it has neither `b` nor `packed`; `down` [k, rank] and `up` [rank, n] state n, k and
// their B alone. Returns as ck_f32_gemm.
int32_t ck_f32_low_rank(const ck_kernels *table, const ck_gemm *base, const ck_gemm *down, const ck_gemm *up, float scale,
                        size_t threads);

// Runs a row kernel of a table over call->rows rows. 0, or -1 when scratch memory for operands that are not f32 cannot be had
// (then nothing is written).
typedef void (*ck_rows_kernel)(const ck_rows *call, size_t first, size_t last);
int32_t ck_rows_run(const ck_kernels *table, ck_rows_kernel kernel, const ck_rows *call, size_t threads);

#endif

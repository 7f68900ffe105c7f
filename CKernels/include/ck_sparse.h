// Products with structure: block-sparse weights, one product a group of rows or columns, low-rank updates.
#ifndef CK_SPARSE_H
#define CK_SPARSE_H

#include "ck_tile.h"

// W [outputs, inputs] as block compressed sparse rows. Blocks that stick out of W have elements there that nothing reads.
typedef struct ck_sparse_weights {
  size_t outputs, inputs;
  size_t block_outputs, block_inputs;  // at least 1
  const int32_t *offsets;              // [block rows + 1] first block of each block row
  const int32_t *columns;              // [blocks] block column of each block, ascending in a block row
  const float *packed;                 // ck_f32_sparse_pack's output
} ck_sparse_weights;

// Rows of a by the panels [first, last) of W^T: c = act(alpha a W^T + bias) + residual. c, bias and residual start at the first
// output of panel `first`. Absent blocks are not multiplied, so what a holds there has no effect, NaN included.
typedef struct ck_sparse_block {
  const ck_sparse_weights *weights;
  size_t m, first, last;
  const float *a;  // [m, inputs]
  size_t a_rs;
  float *c;        // [m, outputs of the panels]
  size_t c_rs;
  float alpha;
  const float *bias;      // [outputs of the panels] or NULL
  const float *residual;  // [m, outputs of the panels] or NULL; may equal c exactly
  size_t residual_rs;
  ck_activation activation;
} ck_sparse_block;

// y = act(alpha x W^T + bias) + residual.
typedef struct ck_sparse_linear {
  size_t m;
  ck_sparse_weights weights;
  const void *x;  // [m, inputs] of x_type
  size_t x_rs;
  void *y;        // [m, outputs] of y_type
  size_t y_rs;
  float alpha;
  const float *bias;     // [outputs] or NULL
  const void *residual;  // [m, outputs] of residual_type or NULL; may equal y exactly
  size_t residual_rs;
  ck_activation activation;
  ck_dtype x_type, y_type, residual_type;
} ck_sparse_linear;

// Whether panels of half gemm_nr waste fewer lanes than whole ones for blocks of this many outputs.
#define CK_SPARSE_HALVES(block_outputs, nr) (((block_outputs) - 1) % (nr) < (nr) / 2)

// Outputs of a panel for blocks of this many outputs: gemm_nr, or half of it where that wastes fewer lanes.
size_t ck_sparse_width(const ck_kernels *table, size_t block_outputs);
// Floats of `blocks` packed blocks.
size_t ck_f32_sparse_packed_size(const ck_kernels *table, size_t blocks, size_t block_outputs, size_t block_inputs);
// Packs blocks [blocks][block_outputs][block_inputs] into panels [block row][panel][block][block_inputs][width], zero-padded.
// Reads everything of `weights` but `packed`.
void ck_f32_sparse_pack(const ck_kernels *table, const ck_sparse_weights *weights, const float *blocks, float *packed);
// 0, or -1 when scratch memory cannot be had (then y is untouched).
int32_t ck_f32_sparse_linear(const ck_kernels *table, const ck_sparse_linear *call, size_t threads);

// One product for each group g, all of one size: y_g = act(alpha x_g W_g^T + bias_g) + residual_g.
// A group has rows of its own (experts: offsets, x_gs and y_gs 0) or columns of its own (offsets NULL, x_gs k, y_gs n).
typedef struct ck_grouped {
  size_t groups, m, n, k;      // m: rows of x and y
  const int32_t *offsets;      // [groups + 1] first row of each group, or NULL: every group has all m rows
  const void *const *packed;   // [groups] panels as ck_pack_b makes them, of b_type
  const ck_tile_range *ranges;  // [groups] of ck_packed_range, least 0: not known; or NULL
  const void *x;               // group g, row i at x + g * x_gs + i * x_rs, k elements of x_type
  size_t x_rs, x_gs;
  void *y;                     // group g, row i at y + g * y_gs + i * y_rs, n elements of y_type
  size_t y_rs, y_gs;
  float alpha;
  const float *bias;     // group g at bias + g * bias_gs, n elements; or NULL
  size_t bias_gs;
  const void *residual;  // as y, of residual_type; or NULL; may equal y exactly
  size_t residual_rs, residual_gs;
  ck_activation activation;
  ck_dtype x_type, b_type, y_type, residual_type;
  ck_split split;  // what may go through tiles, where the table has them
} ck_grouped;

// Threads share the blocks of all groups, or of each that goes through tiles. 0, or -1 when scratch memory cannot be had (then y
// is untouched).
int32_t ck_f32_grouped(const ck_kernels *table, const ck_grouped *call, size_t threads);

#endif

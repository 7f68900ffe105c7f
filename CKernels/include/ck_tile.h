// Products in tiles of a matrix unit (AMX): f32 operands as sums of bf16 pieces, docs/adr/0012-f32-split.md.
#ifndef CK_TILE_H
#define CK_TILE_H

#include "ck_types.h"

// Tiles are 16 rows of 64 bytes; kernels take them in pairs, so that blocks and ranges are of CK_TILE_EDGE rows or columns.
#define CK_TILE_EDGE 32
#define CK_TILE_STEP 32         // k of one tile product of bf16
#define CK_TILE_ELEMENTS 512    // of a tile of bf16
#define CK_TILE_MOST_PIECES 3

// Which products are cut into bf16 pieces and multiplied in tiles, where the table has them; the rest are f32 FMA.
typedef enum ck_split {
  CK_SPLIT_NARROW = 0,  // B of 16 bits, exactly
  CK_SPLIT_THREE = 1,   // and f32 B: three pieces, the error bound of FMA
  CK_SPLIT_TWO = 2,     // two pieces an operand at most: error 2^-15 (1 + 2^-8) |A| |B| more
  CK_SPLIT_ONE = 3,     // operands, and quantised weights, rounded to bf16: error 2^-7 (1 + 2^-8) |A| |B| more
} ck_split;

// Pieces i of A and j of B are multiplied where i + j is at most this.
static inline size_t ck_tile_order(ck_split split) { return split == CK_SPLIT_ONE ? 0 : split == CK_SPLIT_TWO ? 1 : 2; }
// The fewest pieces that hold a type exactly: 8, 11 or 24 bits at 8 a piece; but no more than are multiplied.
static inline size_t ck_tile_pieces(ck_dtype type, size_t order) {
  const size_t pieces = type == CK_BF16 ? 1 : type == CK_F16 ? 2 : CK_TILE_MOST_PIECES;
  return pieces <= order ? pieces : order + 1;
}

// Magnitudes of some elements: the least that is not 0 (infinity without any), and the largest (infinity if one is not finite).
typedef struct ck_tile_range {
  float least, most;
} ck_tile_range;

// Whether pieces of A and B with these ranges give sums over k within the bound: nothing that matters underflows, as tiles take
// what is below 2^-126 for 0, and nothing overflows. The limits are derived in docs/adr/0012-f32-split.md.
static inline int32_t ck_tile_safe(ck_tile_range a, ck_tile_range b, size_t k) {
  return a.least >= 0x1p-103f && b.least >= 0x1p-103f && a.least * b.least >= 0x1p-96f && a.most < 0x1p126f &&
         b.most < 0x1p126f && a.most * b.most * (float)k < 0x1p126f;
}

// One K slice of an operand as tiles of bf16, zero-padded, and the range of each CK_TILE_EDGE rows or columns. The last 16 rows
// of A are left out where all of them would be padding: products read no tile without rows.
typedef struct ck_tile_pack {
  size_t count, k;         // rows of A or columns of B; depth
  ck_dtype type;           // f32, bf16 or f16
  const void *x;  // A: [count, k], rows rs apart. B: [k, count], rows rs apart; or panels of gemm_nr columns, see panel
  size_t rs;
  size_t panel;  // B: 0, or elements from panel to panel
  const uint16_t *const
      *at;  // A of bf16: NULL, or where its tiles lie, as in ck_tile_block; then there is no x, and ranges alone
  size_t pieces;  // 1 ... CK_TILE_MOST_PIECES; B: 0 makes ranges alone
  uint16_t *tiles;  // A: [count/16][k/32][pieces][16][32]; B: [count/32][k/32][pieces][16 pairs of k][32][2]; 16s come in twos
  ck_tile_range *ranges;  // [count/CK_TILE_EDGE]
} ck_tile_pack;

static inline size_t ck_tile_steps(size_t k) { return (k + CK_TILE_STEP - 1) / CK_TILE_STEP; }
// Elements of the tiles of CK_TILE_EDGE rows or columns.
static inline size_t ck_tile_panel(size_t k, size_t pieces) { return 2 * ck_tile_steps(k) * pieces * CK_TILE_ELEMENTS; }

// At most CK_TILE_EDGE rows of C: block->m, n and k, c and everything after it are as for f32_gemm_block; its a and b are not
// read.
typedef struct ck_tile_block {
  const ck_gemm_block *block;
  const uint16_t *a;  // of bf16_tile_pack_a; unused with a_at
  const uint16_t *const *a_at;  // NULL, or the tiles of A [16, 32] as they lie, one piece: that of rows 16 h and step s at
                                // a_at[h k / 32 + s], rows a_rs apart; m a multiple of 16 and k of 32
  size_t a_rs;
  const uint16_t *b;  // of bf16_tile_pack_b, or panels of 32 columns of bf16 as packed weights are
  size_t b_panel;  // elements from 32 columns to the next
  int32_t b_packed;  // whether they are packed weights, one piece, whose last step may be short
  size_t a_pieces, b_pieces, order;
  int32_t ahead;  // whether b is fetched ahead, which a kernel may leave out with a_at
  const void *next;  // A that will be read next, or NULL: next_rows rows of next_lines times 64 bytes, next_rs bytes apart
  size_t next_rows, next_rs, next_lines;
} ck_tile_block;

#endif

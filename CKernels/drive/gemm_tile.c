// GEMM in tiles of bf16 pieces, 32 rows of A at a time, slice by slice. B becomes tiles chunk by chunk, or is read as it is
// packed.
//
// Where the magnitudes of a slice do not allow pieces (ck_tile_safe), its 32 rows by 32 columns are multiplied by FMA. Slices
// depend on K and the types, and those 32s are counted from the first row and column: an element's bits depend on nothing else.
#include "gemm_tile.h"

#include <math.h>
#include <string.h>

#include "../include/ck_parallel.h"
#include "gemm.h"
#include "staging.h"

enum {
  EDGE = CK_TILE_EDGE,
  MOST_ROWS = 512,              // of a block
  FEW_ROWS = 64,                // so few take panels of B from end to end
  MOST_SLICES_OF_FEW = 16,      // of EDGE rows of A that are tiles at once then: 512 KiB
  MOST_COLUMNS = 1024,
  BLOCK_OF_B = 1 << 19,         // bf16 elements of a block's slice of B: 1 MiB of L2
  CHUNK_OF_B = 1 << 22,         // bf16 elements of B that are tiles at a time
  BLOCK_WORK = 1 << 20,         // the least worth cutting a block for
  BLOCKS_A_THREAD = 4,
  HALF = EDGE / 2,
  ALIASING_BYTES = 2048,  // rows of A a multiple of these apart meet in few sets of L1: a copy pays
  PANELS_A_PIECE = 1 << 15,     // elements of B worth handing to another thread
};

// Depths at which 32 rows of A, in one, two or three pieces, leave room in L1.
static const size_t depths[] = {512, 256, 192};
enum { MOST_STEPS = 512 / CK_TILE_STEP };

// Scratch of a participant, in this order: tiles of 32 rows of A; 32 columns and 32 rows of a slice as floats, rows of B that are
// not f32 beside them; rows that are made, and tiles of rows that lie nowhere; ranges of a block's B and V; C, A V and a residual
// of a block.
enum piece { TILES_A, PANELS_B, ROWS_OF_B, ROWS_OF_A, MADE_A, PLACED_A, RANGES_B, KEPT_C, KEPT_VALUE, KEPT_RESIDUAL, PIECES };

typedef struct plan {
  const ck_kernels *table;
  const ck_gemm *call;
  size_t order, a_pieces, b_pieces;
  size_t slice, slices;   // depth of a K slice, and how many there are
  size_t rows, columns;   // of a block
  size_t chunk;           // columns of B that are tiles at a time
  int direct;             // packed panels are multiplied as they lie: no tiles, and ranges where those of all do not do
  int few;                // rows, and so panels from end to end: A is packed whole first
  int placed;             // tiles of A are multiplied where they lie, but for rows and steps that are not whole
  int overwritten;        // C's first slice would overwrite its residual
  const ck_tile_rows *made;  // or NULL
  size_t at[PIECES + 1];  // floats before each piece, and of all of them
  float *pieces;
  size_t operands, tiles_b, packed_b;  // B and V; floats of the tiles of one, and of tiles and ranges
  float *packed;
} plan;

// Columns [j, j + n) of entry z of B or of V, as tiles.
typedef struct region {
  const plan *plan;
  const void *packed;  // panels, or NULL where B has none
  size_t operand;      // 0 of B, 1 of V
  size_t z, j, n;
  uint16_t *tiles;  // [slices][n/32][k/32][pieces][16][32][2]; NULL where panels are multiplied as they lie
  ck_tile_range *ranges;  // [slices][n/32], with tiles
} region;

// The range of all of B, or of V, where the call knows it.
static ck_tile_range range_of_all(const plan *p, size_t operand) {
  return operand ? p->call->value_range : p->call->packed_range;
}
static int is_known(const plan *p, size_t operand) { return p->direct && range_of_all(p, operand).least > 0; }

static int is_quantized(const ck_gemm *call) { return call->b_type >= CK_DTYPE_COUNT; }

static float *scratch_of(const plan *p, enum piece piece) { return p->pieces + ck_participant() * p->at[PIECES] + p->at[piece]; }
static int has(const plan *p, enum piece piece) { return p->at[piece + 1] > p->at[piece]; }

// B(k + q, j + c) for q < depth, c < n, as panels of floats `*panel` apart; n at most EDGE.
static const float *panels_of(const region *r, size_t j, size_t n, size_t k, size_t depth, size_t *panel) {
  const plan *p = r->plan;
  const ck_gemm *call = p->call;
  const size_t nr = p->table->gemm_nr;
  float *panels = scratch_of(p, PANELS_B), *rows = scratch_of(p, ROWS_OF_B);
  *panel = nr * depth;
  if (!r->packed) {
    const void *from = staging_element(call->b_type, call->b, r->z * call->b_bs + k * call->b_rs + j * call->b_cs);
    size_t ks = call->b_rs, ns = call->b_cs;
    if (call->b_type != CK_F32) {
      for (size_t c = 0; c < n; c++)
        if (ks == 1)
          p->table->f32_widen(call->b_type, depth, staging_element(call->b_type, from, c * ns), rows + c * depth);
        else
          for (size_t q = 0; q < depth; q++)
            p->table->f32_widen(call->b_type, 1, staging_element(call->b_type, from, c * ns + q * ks), rows + c * depth + q);
      from = rows, ks = 1, ns = depth;
    }
    p->table->f32_gemm_pack_b(n, depth, from, ks, ns, panels);
    return panels;
  }
  const size_t apart = gemm_panel(p->table, call), at = gemm_packed_at(p->table, call, j, k);
  if (call->b_type == CK_F32) {
    *panel = apart;
    return (const float *)r->packed + at;
  }
  for (size_t q = 0; q < pieces_of(n, nr); q++) {
    const char *from = (const char *)r->packed + ck_packed_bytes(call->b_type, at + q * apart);
    p->table->f32_gemm_unpack_b(call->b_type, depth, from, panels + q * nr * depth);
  }
  return panels;
}

// The ranges of a slice of B or V from panel `first` of the region on; without tiles, those of the participant's block.
static ck_tile_range *ranges_of(const region *r, size_t slice, size_t first) {
  const plan *p = r->plan;
  if (r->tiles) return r->ranges + slice * pieces_of(r->n, EDGE) + first;
  return (ck_tile_range *)scratch_of(p, RANGES_B) + r->operand * (p->columns / EDGE);
}

// Panel q of EDGE columns of a slice: its range, and its tiles where there are any.
static void pack_panel(const region *r, size_t slice, size_t q, ck_tile_range *range) {
  const plan *p = r->plan;
  const ck_gemm *call = p->call;
  const size_t k = slice * p->slice, j = r->j + q * EDGE, depth = MIN(p->slice, call->k - k);
  ck_tile_pack pack = {.count = MIN(EDGE, r->n - q * EDGE), .k = depth, .type = call->b_type, .ranges = range};
  if (r->tiles) {
    pack.pieces = p->b_pieces;
    pack.tiles = r->tiles + pieces_of(r->n, EDGE) * ck_tile_panel(k, p->b_pieces) + q * ck_tile_panel(depth, p->b_pieces);
  }
  if (r->packed && !is_quantized(call)) {
    pack.panel = gemm_panel(p->table, call);
    pack.x = staging_element(call->b_type, r->packed, gemm_packed_at(p->table, call, j, k));
  } else if (!r->packed && call->b_cs == 1) {
    pack.x = staging_element(call->b_type, call->b, r->z * call->b_bs + k * call->b_rs + j), pack.rs = call->b_rs;
  } else {
    pack.x = panels_of(r, j, pack.count, k, depth, &pack.panel), pack.type = CK_F32;
  }
  p->table->bf16_tile_pack_b(&pack);
}

// Panels [first, last) of a region, every slice of K.
static void pack_panels(const void *context, size_t first, size_t last) {
  const region *r = context;
  for (size_t slice = 0; slice < r->plan->slices; slice++)
    for (size_t q = first; q < last; q++) pack_panel(r, slice, q, ranges_of(r, slice, q));
}

// Columns [from, to) of a block.
static ck_gemm_block columns_of(const ck_gemm_block *all, size_t from, size_t to) {
  ck_gemm_block block = *all;
  ck_gemm_columns(&block, all, from, to - from);
  return block;
}

// EDGE rows of a block by its columns [from, to), all of them safe or none.
static void run_columns(const region *r, const ck_gemm_block *all, const ck_tile_block *tile, size_t from, size_t to) {
  const plan *p = r->plan;
  const ck_gemm_block block = columns_of(all, from, to);
  ck_tile_block moved = *tile;
  moved.block = &block;
  moved.b += from / EDGE * tile->b_panel;
  p->table->f32_tile_block(&moved);
}

// Rows [i, i + m) of A, a slice of K from k on: as they lie, or made in scratch. Returns how far apart they are.
static size_t rows_of_a(const region *r, size_t i, size_t m, size_t k, size_t depth, const void **rows) {
  const plan *p = r->plan;
  const ck_gemm *call = p->call;
  if (!p->made) {
    *rows = staging_element(call->a_type, call->a, r->z * call->a_bs + i * call->a_rs + k);
    return call->a_rs;
  }
  void *to = scratch_of(p, MADE_A);
  p->made->make(p->made->context, i, m, k, depth, to);
  *rows = to;
  return depth;
}

// The same by FMA, EDGE columns at a time.
static void run_fallback(const region *r, const ck_gemm_block *all, size_t i, size_t k, size_t j, size_t from) {
  const plan *p = r->plan;
  const ck_gemm *call = p->call;
  float *rows = scratch_of(p, ROWS_OF_A);
  ck_gemm_block block = columns_of(all, from, MIN(from + EDGE, all->n));
  const void *a;
  block.a_rs = rows_of_a(r, i, block.m, k, block.k, &a), block.a = a;
  if (call->a_type != CK_F32) {
    staging_in(p->table, call->a_type, a, block.a_rs, 0, 0, block.m, block.k, rows, block.k);
    block.a = rows, block.a_rs = block.k;
  }
  block.b = panels_of(r, j + from, block.n, k, block.k, &block.b_panel);
  p->table->f32_gemm_block(&block);
}

// EDGE rows of A from row i on, a slice of K.
typedef struct rows_a {
  size_t i;
  ck_tile_block tile;
  ck_tile_range range;
  const uint16_t *at[2 * MOST_STEPS];
} rows_a;

// EDGE rows of a block of columns from j on, of which [from, to), and one slice: runs of columns that tiles can do, and FMA for
// the others.
static void run_rows(const region *r, const ck_gemm_block *block, const rows_a *rows, size_t slice, size_t j, size_t from,
                     size_t to) {
  const plan *p = r->plan;
  const size_t first = (j - r->j) / EDGE, last = pieces_of(to, EDGE);
  ck_tile_block tile = rows->tile;
  if (p->direct) {
    tile.b_panel = gemm_panel(p->table, p->call), tile.b_packed = 1;
    tile.b = (const uint16_t *)r->packed + gemm_packed_at(p->table, p->call, j, slice * p->slice);
  } else {
    tile.b_panel = ck_tile_panel(block->k, p->b_pieces);
    tile.b = r->tiles + pieces_of(r->n, EDGE) * ck_tile_panel(slice * p->slice, p->b_pieces) + first * tile.b_panel;
  }
  const int known = is_known(p, r->operand);
  if (known && ck_tile_safe(rows->range, range_of_all(p, r->operand), block->k)) {
    run_columns(r, block, &tile, from, to);
    return;
  }
  ck_tile_range *ranges = ranges_of(r, slice, first);
  for (size_t q = from / EDGE; known && q < last; q++) pack_panel(r, slice, first + q, ranges + q);
  for (size_t q = from / EDGE, next; q < last; q = next) {
    next = q + 1;
    if (!ck_tile_safe(rows->range, ranges[q], block->k)) {
      run_fallback(r, block, rows->i, slice * p->slice, j, q * EDGE);
      continue;
    }
    while (next < last && ck_tile_safe(rows->range, ranges[next], block->k)) next++;
    run_columns(r, block, &tile, q * EDGE, MIN(next * EDGE, to));
  }
}

// Rows of A where they will be read next: the next EDGE of the block, or its first of the next slice.
static void fetch_after(const region *r, size_t i, size_t m, size_t row, size_t slice, ck_tile_block *tile) {
  const plan *p = r->plan;
  const ck_gemm *call = p->call;
  const int further = row + EDGE < m;
  const size_t k = (further ? slice : slice + 1) * p->slice, next = i + (further ? row + EDGE : 0),
               size = ck_dtype_size(call->a_type);
  if (p->made || k >= call->k) return;
  tile->next = staging_element(call->a_type, call->a, r->z * call->a_bs + next * call->a_rs + k);
  tile->next_rows = MIN(EDGE, i + m - next), tile->next_rs = call->a_rs * size;
  tile->next_lines = MIN(p->slice, call->k - k) * size / 64;
}

// A block of C: columns [j, j + n) of rows [i, i + m), from c and residual on.
typedef struct block_of_c {
  const region *r;
  size_t i, j, m, n;
  char *c;
  const void *residual;
} block_of_c;

static block_of_c block_at(const region *r, size_t index) {
  const plan *p = r->plan;
  const ck_gemm *call = p->call;
  const size_t above = pieces_of(call->m, p->rows), i = index % above * p->rows, j = r->j + index / above * p->columns;
  block_of_c b = {.r = r, .i = i, .j = j, .m = MIN(p->rows, call->m - i), .n = MIN(p->columns, r->j + r->n - j)};
  b.c = (char *)call->c + (r->z * call->c_bs + i * call->c_rs + j) * ck_dtype_size(call->c_type);
  if (call->residual)
    b.residual = staging_element(call->residual_type, call->residual, r->z * call->residual_bs + i * call->residual_rs + j);
  return b;
}

// Where the tiles of `halves` times 16 rows from i on lie. Returns how far apart their rows are.
static size_t place_rows(const region *r, size_t i, size_t halves, size_t k, size_t steps, const uint16_t **at) {
  const plan *p = r->plan;
  const ck_gemm *call = p->call;
  if (p->made) {
    uint16_t *scratch = (uint16_t *)scratch_of(p, PLACED_A);
    const size_t half = p->at[PLACED_A + 1] - p->at[PLACED_A];  // elements: as many as floats of both
    for (size_t h = 0; h < halves; h++)
      p->made->place(p->made->context, i + h * HALF, k, steps, scratch + h * half, at + h * steps);
    return p->made->place_rs;
  }
  const uint16_t *a = staging_element(CK_BF16, call->a, r->z * call->a_bs + i * call->a_rs + k);
  for (size_t tile = 0; tile < halves * steps; tile++)
    at[tile] = a + tile / steps * HALF * call->a_rs + tile % steps * CK_TILE_STEP;
  return call->a_rs;
}

// EDGE rows of A from `row` of the block on, a slice of K: where they lie, or as tiles.
static void pack_rows(const block_of_c *b, size_t row, size_t slice, uint16_t *tiles, rows_a *rows) {
  const plan *p = b->r->plan;
  const ck_gemm *call = p->call;
  const size_t m = MIN(EDGE, b->m - row), k = slice * p->slice, depth = MIN(p->slice, call->k - k);
  *rows = (rows_a){.i = b->i + row, .tile = {.a_pieces = p->a_pieces, .b_pieces = p->b_pieces, .order = p->order}};
  ck_tile_pack pack = {.count = m, .k = depth, .type = call->a_type, .pieces = p->a_pieces, .ranges = &rows->range};
  if (p->placed && m % HALF == 0) {
    pack.rs = rows->tile.a_rs = place_rows(b->r, rows->i, m / HALF, k, depth / CK_TILE_STEP, rows->at);
    pack.at = rows->tile.a_at = rows->at;
  } else {
    pack.rs = rows_of_a(b->r, rows->i, m, k, depth, &pack.x);
    pack.tiles = tiles, rows->tile.a = tiles;
  }
  p->table->bf16_tile_pack_a(&pack);
}

// Those rows by columns [from, to) of the block, which come in ascending order, for each slice or within it.
static void multiply_rows(const block_of_c *b, rows_a *rows, size_t row, size_t slice, size_t from, size_t to) {
  const region *r = b->r;
  const plan *p = r->plan;
  const ck_gemm *call = p->call;
  const ck_kernels *table = p->table;
  const int first = !slice && !from, last = slice + 1 == p->slices, keeps_c = has(p, KEPT_C);
  const size_t n = b->n, kept = p->slices > 1 || p->few ? row * n : 0;  // one slice is done with its rows at once
  float *kept_value = scratch_of(p, KEPT_VALUE);
  ck_gemm_block block = {
      .m = MIN(EDGE, b->m - row), .n = n, .k = MIN(p->slice, call->k - slice * p->slice), .alpha = call->k ? call->alpha : 0};
  char *c_row = b->c + row * call->c_rs * ck_dtype_size(call->c_type);
  block.beta = slice ? 1 : call->beta;
  if (keeps_c)
    block.c = scratch_of(p, KEPT_C) + kept, block.c_rs = n;
  else if (call->c_type == CK_F32)
    block.c = (float *)c_row, block.c_rs = call->c_rs;
  if (keeps_c && block.beta != 0 && first) staging_in(table, call->c_type, c_row, call->c_rs, 0, 0, block.m, n, block.c, n);
  if (call->value) {
    ck_gemm_block value = {.m = block.m, .n = n, .k = block.k, .c_rs = n, .alpha = block.alpha, .beta = block.beta};
    value.c = kept_value + kept;
    if (last) value.bias = call->value_bias ? call->value_bias + b->j : 0, block.factor = value.c, block.factor_rs = n;
    run_rows(r + 1, &value, rows, slice, b->j, from, to);
    rows->tile.next = 0;
  }
  if (last) {
    const size_t image = p->made && p->made->bias_rows ? (b->i + row) / p->made->bias_rows : 0;
    block.bias = call->bias ? call->bias + image * call->n + b->j : 0, block.activation = call->activation;
    if (call->c_type != CK_F32) block.y = c_row, block.y_rs = call->c_rs, block.y_type = call->c_type;
    if (p->overwritten)
      block.residual = scratch_of(p, KEPT_RESIDUAL) + row * n, block.residual_rs = n;
    else if (b->residual)
      block.residual = staging_at(call->residual_type, b->residual, call->residual_rs, row, 0),
      block.residual_rs = call->residual_rs, block.residual_type = call->residual_type;
  }
  run_rows(r, &block, rows, slice, b->j, from, to);
}

// One block of C through every K slice: slice by slice, EDGE rows at a time, or, of few rows, EDGE columns at a time.
// Neighbouring blocks share columns, so their B stays in the shared cache. V's region follows B's.
static void run_block(const region *r, size_t index) {
  const plan *p = r->plan;
  const ck_gemm *call = p->call;
  const block_of_c b = block_at(r, index);
  uint16_t *tiles_a = (uint16_t *)scratch_of(p, TILES_A);
  if (p->overwritten)
    staging_in(p->table, CK_F32, b.residual, call->residual_rs, 0, 0, b.m, b.n, scratch_of(p, KEPT_RESIDUAL), b.n);
  if (p->few) {
    rows_a rows[MOST_SLICES_OF_FEW];
    const size_t groups = pieces_of(b.m, EDGE), sets = groups * p->slices;
    for (size_t set = 0; set < sets; set++) {
      pack_rows(&b, set % groups * EDGE, set / groups, tiles_a + set * ck_tile_panel(p->slice, 1), &rows[set]);
      rows[set].tile.ahead = set % groups == 0;
    }
    for (size_t from = 0; from < b.n; from += EDGE)
      for (size_t set = 0; set < sets; set++)
        multiply_rows(&b, &rows[set], set % groups * EDGE, set / groups, from, MIN(from + EDGE, b.n));
    return;
  }
  for (size_t slice = 0; slice < p->slices; slice++) {
    for (size_t operand = 0; p->direct && operand < p->operands; operand++)
      for (size_t q = 0; !is_known(p, operand) && q < pieces_of(b.n, EDGE); q++)
        pack_panel(r + operand, slice, (b.j - r->j) / EDGE + q, ranges_of(r + operand, slice, 0) + q);
    for (size_t row = 0; row < b.m; row += EDGE) {
      rows_a rows;
      pack_rows(&b, row, slice, tiles_a, &rows);
      fetch_after(r, b.i, b.m, row, slice, &rows.tile);
      multiply_rows(&b, &rows, row, slice, 0, b.n);
    }
  }
}

static void run_blocks(const void *context, size_t first, size_t last) {
  for (size_t index = first; index < last; index++) run_block(context, index);
}

// Halves blocks, the longer side first, until every thread has some or they would be too small.
static void cut_blocks(plan *p, size_t threads) {
  const ck_gemm *call = p->call;
  size_t most = MOST_COLUMNS;
  if (!p->direct) most = MIN(most, BLOCK_OF_B / (p->slice * p->b_pieces));
  p->rows = balanced(call->m, MOST_ROWS, EDGE), p->columns = balanced(p->chunk, most, EDGE);
  const size_t work = call->m * p->chunk * call->k;
  const size_t each = call->m <= FEW_ROWS ? BLOCKS_A_THREAD / 2 : BLOCKS_A_THREAD;  // each packs A anew
  const size_t wanted = threads > 1 ? MIN(threads * each, work / BLOCK_WORK) : 1;
  while (pieces_of(call->m, p->rows) * pieces_of(p->chunk, p->columns) < wanted) {
    if (p->rows == EDGE && p->columns == EDGE) break;
    size_t *longer = p->rows >= p->columns ? &p->rows : &p->columns;
    *longer = round_up(*longer / 2, EDGE);
  }
}

// Whether tiles of A may stay where they lie: whole steps, in cache lines of their own, not in few sets of L1.
static int may_place(const plan *p) {
  const ck_gemm *call = p->call;
  const size_t size = sizeof(uint16_t), rs = p->made ? p->made->place_rs : call->a_rs;
  if (call->a_type != CK_BF16 || p->a_pieces > 1 || call->k % CK_TILE_STEP) return 0;
  if (p->made && !p->made->place) return 0;
  if (!p->made && ((uintptr_t)call->a % GEMM_TILE_LINE || call->a_bs * size % GEMM_TILE_LINE)) return 0;
  return rs * size % GEMM_TILE_LINE == 0 && rs * size % ALIASING_BYTES;
}

// Lays a product out, and has its scratch: 0, or -1. An empty one has no rows in a block.
static int32_t lay_out(plan *p, const ck_kernels *table, const ck_gemm *call, const ck_tile_rows *made, size_t threads) {
  *p = (plan){.table = table, .call = call, .made = made, .order = ck_tile_order(call->split)};
  if (!call->batch || !call->m || !call->n) return 0;
  p->a_pieces = ck_tile_pieces(call->a_type, p->order), p->b_pieces = ck_tile_pieces(call->b_type, p->order);
  const size_t unit = is_quantized(call) ? ck_quant_unit(call->b_type) : CK_TILE_STEP;
  p->slice = balanced(call->k, depths[MAX(p->a_pieces, p->b_pieces) - 1], unit);
  p->slices = MAX(pieces_of(call->k, p->slice), 1);
  p->direct = gemm_tile_direct(table, call);
  p->operands = call->value ? 2 : 1;
  const size_t column = round_up(call->k, CK_TILE_STEP) * p->b_pieces * p->operands;
  p->chunk = round_up(call->n, EDGE);
  if (!p->direct) p->chunk = MIN(p->chunk, MAX(CHUNK_OF_B / MAX(column, 1) / EDGE, 1) * EDGE);
  cut_blocks(p, threads);
  const size_t sets = p->slices * (p->rows / EDGE);
  p->few = p->direct && p->a_pieces == 1 && call->m <= FEW_ROWS && sets <= MOST_SLICES_OF_FEW && gemm_tile_known(call);

  p->placed = !p->few && may_place(p);
  const size_t runs = p->placed && made ? MIN(p->slice / made->place_run + 2, p->slice / CK_TILE_STEP) : 0;
  const size_t edge = EDGE * p->slice, kept = (p->slices > 1 || p->few ? p->rows : EDGE) * p->columns;
  p->overwritten = call->residual && call->residual == call->c && p->slices > 1 && call->c_type == CK_F32;
  const size_t floats[PIECES] = {
      [TILES_A] = ck_tile_panel(p->slice, p->a_pieces) / 2 * (p->few ? sets : 1),
      [PANELS_B] = edge,
      [ROWS_OF_B] = edge,
      [ROWS_OF_A] = edge,
      [MADE_A] = made ? edge : 0,
      [PLACED_A] = runs * EDGE * (made ? made->place_rs : 0) / 2,
      [RANGES_B] = p->direct ? round_up(p->operands * p->columns / EDGE * 2, 16) : 0,
      [KEPT_C] = call->c_type != CK_F32 && (p->slices > 1 || call->beta != 0) ? kept : 0,
      [KEPT_VALUE] = call->value ? kept : 0,
      [KEPT_RESIDUAL] = p->overwritten ? p->rows * p->columns : 0,
  };
  for (size_t i = 0; i < PIECES; i++) p->at[i + 1] = p->at[i] + floats[i];
  const size_t across = p->chunk / EDGE, blocks = pieces_of(call->m, p->rows) * pieces_of(p->chunk, p->columns);
  if (!(p->pieces = ck_scratch(CK_SCRATCH_A, p->at[PIECES] * MAX(MIN(threads, p->direct ? blocks : MAX(blocks, across)), 1))))
    return -1;
  if (p->direct) return 0;
  p->tiles_b = across * ck_tile_panel(p->slice, p->b_pieces) / 2 * p->slices;
  p->packed_b = p->tiles_b + round_up(across * p->slices * 2, 16);
  p->packed = ck_scratch(CK_SCRATCH_B, p->packed_b * p->operands);
  return p->packed ? 0 : -1;
}

int32_t ck_tile_gemm_rows(const ck_kernels *table, const ck_gemm *call, const ck_tile_rows *made, size_t threads) {
  plan p;
  if (lay_out(&p, table, call, made, threads)) return -1;
  for (size_t z = 0; p.rows && z < call->batch; z++)
    for (size_t j = 0; j < call->n; j += p.chunk) {
      region r[2];
      for (size_t i = 0; i < p.operands; i++) {
        r[i] = (region){.plan = &p, .packed = i ? call->value : call->packed, .operand = i, .z = z, .j = j};
        r[i].n = MIN(p.chunk, call->n - j);
        if (p.direct) continue;
        float *own = p.packed + i * p.packed_b;
        r[i].tiles = (uint16_t *)own, r[i].ranges = (ck_tile_range *)(own + p.tiles_b);
        ck_parallel(pieces_of(r[i].n, EDGE), PANELS_A_PIECE / (EDGE * MAX(call->k, 1)) + 1, threads, pack_panels, r + i);
      }
      ck_parallel(pieces_of(call->m, p.rows) * pieces_of(r->n, p.columns), 1, threads, run_blocks, r);
    }
  return 0;
}

int32_t ck_tile_gemm(const ck_kernels *table, const ck_gemm *call, size_t threads) {
  return ck_tile_gemm_rows(table, call, 0, threads);
}

int32_t ck_tile_gemm_ready(const ck_kernels *table, const ck_gemm *call, size_t threads) {
  plan p;
  return lay_out(&p, table, call, 0, threads);
}

// What the panels of a packed matrix are looked through for.
typedef struct look {
  const ck_kernels *table;
  size_t n, k;
  const void *packed;
  ck_tile_range *ranges;  // [n/32]
} look;

static void look_through(const void *context, size_t first, size_t last) {
  const look *l = context;
  const size_t nr = l->table->gemm_nr, n = MIN(last * EDGE, l->n) - first * EDGE;
  const void *x = staging_element(CK_BF16, l->packed, first * EDGE * l->k);
  l->table->bf16_tile_pack_b(
      &(ck_tile_pack){.count = n, .k = l->k, .type = CK_BF16, .x = x, .panel = nr * l->k, .ranges = l->ranges + first});
}

ck_tile_range ck_packed_range(const ck_kernels *table, size_t n, size_t k, const void *packed, size_t threads) {
  const size_t panels = pieces_of(n, EDGE);
  ck_tile_range all = {INFINITY, 0}, *ranges = gemm_tile_reads(table) ? (void *)ck_scratch(CK_SCRATCH_A, 2 * panels) : 0;
  if (!ranges || !panels || !k) return (ck_tile_range){0, 0};
  ck_parallel(panels, PANELS_A_PIECE / (EDGE * k) + 1, threads, look_through, &(look){table, n, k, packed, ranges});
  for (size_t q = 0; q < panels; q++) all.least = MIN(all.least, ranges[q].least), all.most = MAX(all.most, ranges[q].most);
  return all;
}

// One product for each group of rows (experts) or columns: the blocks of all are shared out together, so that small groups leave
// no thread waiting; after them groups that pay in tiles, one by one. The arithmetic of an element is that of ck_f32_gemm, K
// uncut.
#include "../include/ck_drive.h"
#include "../include/ck_parallel.h"
#include "gemm.h"
#include "gemm_tile.h"
#include "staging.h"

enum {
  MOST_COLUMNS = 2048,    // of a block
  MOST_COLUMNS_KEPT = 512,  // and where B is widened or C kept as floats
  CALLER_WORK = 1 << 19,  // multiply-adds worth handing to another thread
  BLOCK_WORK = 1 << 18,   // and the least worth cutting a block for
  BLOCKS_A_THREAD = 4,
  FEWEST_COLUMNS_TO_PACK = 96,  // of a block that repay packing A
};

typedef struct plan {
  const ck_kernels *table;
  const ck_grouped *call;
  size_t slice;          // depth of a K slice
  size_t rows, columns;  // of a block
  size_t across;         // blocks of a row
  // Floats of scratch: a slice of x as floats, the same packed, y and the residual of a block; 0 if not needed.
  size_t staged_a, packed_a, staged_c, staged_residual;
  size_t piece;
  float *scratch;
} plan;

// The product of one group.
static ck_gemm product_of(const ck_grouped *call, size_t g) {
  const size_t i = call->offsets ? (size_t)call->offsets[g] : 0, m = call->offsets ? (size_t)call->offsets[g + 1] - i : call->m;
  return (ck_gemm){
      .batch = 1,
      .m = m,
      .n = call->n,
      .k = call->k,
      .a = staging_element(call->x_type, call->x, g * call->x_gs + i * call->x_rs),
      .a_rs = call->x_rs,
      .a_cs = 1,
      .packed = call->packed[g],
      .c = (float *)staging_element(call->y_type, call->y, g * call->y_gs + i * call->y_rs),
      .c_rs = call->y_rs,
      .alpha = call->alpha,
      .bias = call->bias ? call->bias + g * call->bias_gs : 0,
      .residual = call->residual
                      ? staging_element(call->residual_type, call->residual, g * call->residual_gs + i * call->residual_rs)
                      : 0,
      .residual_rs = call->residual_rs,
      .activation = call->activation,
      .a_type = call->x_type,
      .b_type = call->b_type,
      .c_type = call->y_type,
      .residual_type = call->residual_type,
      .split = call->split,
      .packed_range = call->ranges ? call->ranges[g] : (ck_tile_range){0, 0},
  };
}

// Rows of a group; none where it goes through tiles.
static size_t rows_of(const plan *p, size_t group) {
  const ck_gemm product = product_of(p->call, group);
  return gemm_tile_pays(p->table, &product) ? 0 : product.m;
}

static size_t row_blocks(const plan *p, size_t rows) {
  size_t blocks = 0;
  for (size_t g = 0; g < p->call->groups; g++) blocks += pieces_of(rows_of(p, g), rows);
  return blocks;
}

// The groups that have enough rows, one after the other; or, to begin with, their scratch alone.
static int32_t run_tiles(const plan *p, size_t threads, int ready) {
  for (size_t g = 0; g < p->call->groups; g++) {
    const ck_gemm product = product_of(p->call, g);
    if (!gemm_tile_pays(p->table, &product)) continue;
    if ((ready ? ck_tile_gemm_ready : ck_tile_gemm)(p->table, &product, threads)) return -1;
  }
  return 0;
}

static void run_block(const plan *p, size_t index) {
  const ck_grouped *call = p->call;
  const size_t nr = p->table->gemm_nr, j = index % p->across * p->columns;
  size_t g = 0, above = index / p->across, count = rows_of(p, g);
  for (; above >= pieces_of(count, p->rows); count = rows_of(p, ++g)) above -= pieces_of(count, p->rows);
  const ck_gemm product = product_of(call, g);
  const size_t i = above * p->rows;
  ck_gemm_block block = {
      .m = MIN(p->rows, count - i),
      .n = MIN(p->columns, call->n - j),
      .b_type = call->b_type,
      .b_panel = nr * call->k,
      .alpha = call->k ? call->alpha : 0,
  };
  float *staged_a = p->scratch + ck_participant() * p->piece, *packed_a = staged_a + p->staged_a;
  float *staged_c = packed_a + p->packed_a, *staged_residual = staged_c + p->staged_c;
  void *y = (void *)staging_at(call->y_type, product.c, call->y_rs, i, j);
  if (p->staged_c)
    block.c = staged_c, block.c_rs = block.n;
  else if (call->y_type == CK_F32)
    block.c = y, block.c_rs = call->y_rs;
  const void *residual = call->residual ? staging_at(call->residual_type, product.residual, call->residual_rs, i, j) : 0;
  block.residual_rs = call->residual_rs, block.residual_type = call->residual_type;
  if (p->staged_residual) {
    staging_in(p->table, CK_F32, residual, call->residual_rs, 0, 0, block.m, block.n, staged_residual, block.n);
    residual = staged_residual, block.residual_rs = block.n;
  }
  block.a_packed = p->packed_a && block.m >= GEMM_FEWEST_ROWS_TO_PACK;
  const int whole = call->k && gemm_streams_whole(block.m, call->b_type);
  const size_t depth = whole ? call->k : p->slice;
  for (size_t k = 0; k == 0 || k < call->k; k += depth) {
    block.k = MIN(depth, call->k - k), block.slice = MIN(p->slice, block.k);
    block.b = staging_at(call->b_type, product.packed, call->k, j, k * nr);  // panels are nr * k apart, j in whole ones
    if (p->staged_a) {
      staging_in(p->table, call->x_type, product.a, call->x_rs, i, k, block.m, block.k, staged_a, block.k);
      block.a = staged_a, block.a_rs = block.k;
    } else {
      block.a = product.a + i * call->x_rs + k, block.a_rs = call->x_rs;
    }
    if (block.a_packed) {
      p->table->f32_gemm_pack_a(block.m, block.k, block.a, block.a_rs, 1, packed_a);
      block.a = packed_a;
    }
    if (k + block.k == call->k) {
      block.bias = product.bias ? product.bias + j : 0, block.activation = call->activation;
      block.residual = residual;
      if (call->y_type != CK_F32) block.y = y, block.y_rs = call->y_rs, block.y_type = call->y_type;
    }
    (whole || call->b_type != CK_F32 ? p->table->f32_gemm_stream : p->table->f32_gemm_block)(&block);
    block.beta = 1;
  }
}

static void run_blocks(const void *context, size_t first, size_t last) {
  for (size_t index = first; index < last; index++) run_block(context, index);
}

int32_t ck_f32_grouped(const ck_kernels *table, const ck_grouped *call, size_t threads) {
  plan p = {.table = table, .call = call, .slice = balanced(call->k, table->gemm_kc, 4)};
  size_t longest = 0, work = 0;
  for (size_t g = 0; g < call->groups; g++) {
    const size_t m = rows_of(&p, g);
    if (!m) continue;
    longest = MAX(longest, m), work += MAX(m, 4) * call->n * call->k;  // a few rows cost what reading B costs
  }
  if (!call->n) return 0;
  if (!longest) return run_tiles(&p, threads, 1) ? -1 : run_tiles(&p, threads, 0);
  const size_t all_threads = threads;
  if (work < CALLER_WORK) threads = 1;
  p.rows = balanced(longest, table->gemm_mc, table->gemm_mr);
  const int kept = call->b_type != CK_F32 || call->y_type != CK_F32;
  p.columns = balanced(call->n, kept ? MOST_COLUMNS_KEPT : MOST_COLUMNS, table->gemm_nr);
  const size_t wanted = threads > 1 ? MIN(threads * BLOCKS_A_THREAD, work / BLOCK_WORK) : 1;
  while (p.columns > table->gemm_nr && row_blocks(&p, p.rows) * pieces_of(call->n, p.columns) < wanted)
    p.columns = round_up(p.columns / 2, table->gemm_nr);
  p.across = pieces_of(call->n, p.columns);

  if (call->x_type != CK_F32)
    p.staged_a = round_up(MAX(p.rows * p.slice, MIN(p.rows, (size_t)GEMM_MOST_ROWS_WHOLE) * call->k), 16);
  if (longest >= GEMM_FEWEST_ROWS_TO_PACK && p.columns >= FEWEST_COLUMNS_TO_PACK) p.packed_a = round_up(p.rows, 16) * p.slice;
  if (call->y_type != CK_F32 && call->k > p.slice) p.staged_c = round_up(p.rows * p.columns, 16);
  if (call->residual && call->residual == call->y && call->y_type == CK_F32 && call->k > p.slice)
    p.staged_residual = round_up(p.rows * p.columns, 16);
  p.piece = p.staged_a + p.packed_a + p.staged_c + p.staged_residual;
  const size_t blocks = row_blocks(&p, p.rows) * p.across;
  if (p.piece && !(p.scratch = ck_scratch(CK_SCRATCH_OPERATION, p.piece * MAX(MIN(threads, blocks), 1)))) return -1;
  if (run_tiles(&p, all_threads, 1)) return -1;
  ck_parallel(blocks, 1, threads, run_blocks, &p);
  return run_tiles(&p, all_threads, 0);
}

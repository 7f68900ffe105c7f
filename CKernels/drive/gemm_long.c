// Products of few columns and a long K: K in pieces, each a product of its own into f32 scratch, then their sums in order and the
// epilogue once. Where it is cut depends on N and K alone: M, the batch and the threads only say who runs which piece, so that an
// element has the same bits with any of them. docs/adr/0020-long-k.md.
#include "../include/ck_parallel.h"
#include "gemm.h"
#include "staging.h"

enum {
  MOST_COLUMNS = 256,  // more are worth handing out by themselves
  PIECE_DEPTH = 4096,  // the least of a piece: so deep, 256 columns of B are 4 MiB
  MOST_PIECES = 16,
  DEPTH_UNIT = 256,  // holds whole blocks of every quantised format, and steps of tiles
  SUMS = 1 << 20,  // floats of scratch for sums of an entry, 4 MiB, but for 32 rows
  ROWS_UNIT = 32,  // tiles are counted from the first row and column
  COLUMNS_UNIT = 32,  // and panels are of at most so many
  FEW_ROWS = 128,
  ROWS_A_THREAD = 64,  // more than those, and so many, repay all threads at one piece after the other
  ELEMENTS_A_PIECE = 1 << 15,  // of sums worth handing to another thread
};

// Rows [i, i + rows) of entries [z, z + entries), in tasks: for each operand, entry, piece of K and run of columns.
typedef struct job {
  const ck_kernels *table;
  const ck_gemm *call;
  gemm_driver *run;
  size_t depth, pieces;  // of K
  size_t operands;  // 2 with a value
  size_t z, entries, i, rows;
  size_t columns, across;  // of a task, and tasks beside each other
  size_t threads;  // of a task
  float *sums;  // [operands][entries][pieces][rows, n], `apart` floats from one to the next
  size_t apart;
  int32_t *failed;  // [tasks]
} job;

size_t gemm_long_depth(const ck_gemm *call) {
  const size_t pieces = MIN(call->k / PIECE_DEPTH, MOST_PIECES);
  return pieces < 2 || call->n > MOST_COLUMNS ? call->k : round_up(pieces_of(call->k, pieces), DEPTH_UNIT);
}

static float *sums_of(const job *g, size_t operand, size_t entry, size_t piece) {
  return g->sums + ((operand * g->entries + entry) * g->pieces + piece) * g->apart;
}

// Row i of the rows at hand, of an entry of those, from an element on.
static const void *element_of(const job *g, ck_dtype type, const void *x, size_t bs, size_t rs, size_t entry, size_t i,
                              size_t offset) {
  return staging_element(type, x, (g->z + entry) * bs + (g->i + i) * rs + offset);
}

static int32_t run_task(const job *g, size_t index) {
  const ck_gemm *call = g->call;
  const size_t j = index % g->across * g->columns, piece = index / g->across % g->pieces, k = piece * g->depth;
  const size_t set = index / g->across / g->pieces, entry = set % g->entries, operand = set / g->entries;
  float *sums = sums_of(g, operand, entry, piece) + j;
  ck_gemm part = *call;
  part.batch = 1, part.m = g->rows, part.n = MIN(g->columns, call->n - j), part.k = MIN(g->depth, call->k - k);
  part.a = element_of(g, call->a_type, call->a, call->a_bs, call->a_rs, entry, 0, k * call->a_cs);
  if (call->packed) {
    part.packed_panel = gemm_panel(g->table, call);
    const size_t bytes = ck_packed_bytes(call->b_type, gemm_packed_at(g->table, call, j, k));
    part.packed = (const char *)(operand ? call->value : call->packed) + bytes;
    if (operand) part.packed_range = call->value_range;
  } else {
    part.b = staging_element(call->b_type, call->b, (g->z + entry) * call->b_bs + k * call->b_rs + j * call->b_cs);
  }
  part.value = 0, part.value_bias = part.bias = part.residual = 0, part.activation = CK_IDENTITY;
  part.c = sums, part.c_rs = call->n, part.c_type = CK_F32;
  if (piece) part.beta = 0;
  if (part.beta != 0) {
    const void *c = element_of(g, call->c_type, call->c, call->c_bs, call->c_rs, entry, 0, j);
    staging_in(g->table, call->c_type, c, call->c_rs, 0, 0, part.m, part.n, sums, call->n);
  }
  return g->run(g->table, &part, g->threads);
}

static void run_tasks(const void *context, size_t first, size_t last) {
  const job *g = context;
  for (size_t index = first; index < last; index++) g->failed[index] = run_task(g, index);
}

// Rows [i, i + m) of an entry: the sums of its pieces, in place of the first.
static float *add_pieces(const job *g, size_t operand, size_t entry, size_t i, size_t m) {
  const size_t n = g->call->n;
  float *total = sums_of(g, operand, entry, 0) + i * n;
  for (size_t piece = 1; piece < g->pieces; piece++) {
    const float *other = sums_of(g, operand, entry, piece) + i * n;
    const ck_rows add = {.rows = m, .n = n, .x = total, .x_rs = n, .other = other, .other_rs = n, .y = total, .y_rs = n};
    g->table->f32_add(&add, 0, m);
  }
  return total;
}

// Those rows of the result: the last slice of a product, of depth 0, whose earlier ones have left their sum.
static void finish_rows(const job *g, size_t entry, size_t i, size_t m) {
  const ck_gemm *call = g->call;
  ck_gemm_block block = {.m = m, .n = call->n, .a_rs = 0, .alpha = 0, .beta = 1, .c_rs = call->n};
  if (call->value) {
    block.a = block.b = block.c = add_pieces(g, 1, entry, i, m);
    block.bias = call->value_bias;
    if (block.bias) g->table->f32_gemm_block(&block);
    block.factor = block.c, block.factor_rs = call->n;
  }
  block.a = block.b = block.c = add_pieces(g, 0, entry, i, m);
  block.bias = call->bias, block.activation = call->activation;
  if (call->residual)
    block.residual = element_of(g, call->residual_type, call->residual, call->residual_bs, call->residual_rs, entry, i, 0);
  block.residual_rs = call->residual_rs, block.residual_type = call->residual_type;
  block.y = (void *)element_of(g, call->c_type, call->c, call->c_bs, call->c_rs, entry, i, 0);
  block.y_rs = call->c_rs, block.y_type = call->c_type;
  g->table->f32_gemm_block(&block);
}

// Rows [first, last) of all entries at hand.
static void finish(const void *context, size_t first, size_t last) {
  const job *g = context;
  for (size_t row = first, end; row < last; row = end) {
    const size_t entry = row / g->rows;
    end = MIN(last, (entry + 1) * g->rows);
    finish_rows(g, entry, row - entry * g->rows, end - row);
  }
}

// Whether panels of B are multiplied one by one: rows of A that lie far apart meet in few cache sets, and a panel's slices follow
// each other.
static int by_panels(const job *g) {
  const ck_gemm *call = g->call;
  return call->a_type == CK_F32 && call->a_cs == 1 && call->b_type == CK_F32 && (call->packed || call->b_cs != 1) &&
         g->rows > GEMM_MOST_ROWS_WHOLE && g->run != ck_tile_gemm;
}

// The entries and rows at hand, by all threads at one piece after the other where there are many rows; else shared out by pieces,
// and by columns where there are fewer of those than threads.
static int32_t run_group(job *g, int many_rows, size_t threads) {
  const size_t n = g->call->n, sets = g->operands * g->entries * g->pieces;
  g->threads = many_rows ? threads : 1;
  const size_t wanted = many_rows ? 1 : by_panels(g) ? n : pieces_of(threads, sets);
  g->columns = round_up(pieces_of(n, wanted), COLUMNS_UNIT);
  g->across = pieces_of(n, g->columns);
  const size_t tasks = sets * g->across;
  g->apart = round_up(g->rows * n, 16);
  g->sums = ck_scratch(CK_SCRATCH_PIECES, sets * g->apart + tasks);
  if (!g->sums) return -1;
  g->failed = (int32_t *)(void *)(g->sums + sets * g->apart);
  if (many_rows)
    run_tasks(g, 0, tasks);  // not inside a task, where threads are not to be had
  else
    ck_parallel(tasks, 1, threads, run_tasks, g);
  for (size_t index = 0; index < tasks; index++)
    if (g->failed[index]) return -1;
  ck_parallel(g->entries * g->rows, ELEMENTS_A_PIECE / (g->operands * g->pieces * n) + 1, threads, finish, g);
  return 0;
}

// Many rows come in parts, of which the first takes the most scratch from the caller: where a later one still fails, C is not
// whole.
int32_t gemm_long(const ck_kernels *table, const ck_gemm *call, gemm_driver *run, size_t threads) {
  job g = {.table = table, .call = call, .run = run, .depth = gemm_long_depth(call), .operands = call->value ? 2 : 1};
  g.pieces = pieces_of(call->k, g.depth), threads = MAX(threads, 1);
  if (gemm_work(call) * call->batch < GEMM_CALLER_WORK) threads = 1;
  const size_t rows = balanced(call->m, MAX(SUMS / (g.operands * g.pieces * call->n), ROWS_UNIT), ROWS_UNIT);
  const int parts = rows < call->m, many_rows = parts || call->m > MAX(ROWS_A_THREAD * threads, FEW_ROWS);
  g.entries = parts ? 1 : call->batch;
  for (g.z = 0; g.z < call->batch; g.z += g.entries)
    for (g.i = 0; g.i < call->m; g.i += rows) {
      g.rows = MIN(rows, call->m - g.i);
      if (run_group(&g, many_rows, threads)) return -1;
    }
  return 0;
}

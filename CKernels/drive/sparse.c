// Block-sparse products: rows in blocks that stay in L2, each by runs of panels; threads over both.
#include "../include/ck_drive.h"
#include "../include/ck_parallel.h"
#include "staging.h"

enum {
  A_FLOATS = 1 << 15,     // rows of x a task works on at a time (128 KiB), read again for every panel
  CALLER_WORK = 1 << 19,  // multiply-adds worth handing to another thread
  TASKS_A_THREAD = 4,
  ALIASING_STRIDE = 512,  // rows a multiple of 2 KiB apart compete for the same cache sets
  STAGED_COLUMNS = 512,   // outputs that go through scratch at a time where y is not f32
};

typedef struct plan {
  const ck_kernels *table;
  const ck_sparse_linear *call;
  size_t width, panels;       // of a panel; panels of a block row
  size_t all_panels;
  size_t rows, group;         // rows and panels of a task
  size_t groups;              // tasks of one block of rows
  size_t step;                // panels of one kernel call
  size_t a_rs;                // row stride of staged x, 0 where x is read in place
  size_t c_rs;                // row stride of staged y and residual, 0 where they are used in place
  size_t piece;               // floats of scratch a participant needs
  float *scratch;
} plan;

size_t ck_sparse_width(const ck_kernels *table, size_t block_outputs) {
  return CK_SPARSE_HALVES(block_outputs, table->gemm_nr) ? table->gemm_nr / 2 : table->gemm_nr;
}

size_t ck_f32_sparse_packed_size(const ck_kernels *table, size_t blocks, size_t block_outputs, size_t block_inputs) {
  return blocks * block_inputs * round_up(block_outputs, ck_sparse_width(table, block_outputs));
}

void ck_f32_sparse_pack(const ck_kernels *table, const ck_sparse_weights *weights, const float *blocks, float *packed) {
  const size_t outputs = weights->block_outputs, inputs = weights->block_inputs, width = ck_sparse_width(table, outputs);
  const size_t rows = pieces_of(weights->outputs, outputs);
  for (size_t row = 0; row < rows; row++)
    for (size_t j = 0; j < outputs; j += width)
      for (int32_t t = weights->offsets[row]; t < weights->offsets[row + 1]; t++) {
        const float *block = blocks + ((size_t)t * outputs + j) * inputs;
        for (size_t p = 0; p < inputs; p++)
          for (size_t o = 0; o < width; o++) *packed++ = o < MIN(width, outputs - j) ? block[o * inputs + p] : 0;
      }
}

// The first output of a panel.
static size_t output_of(const plan *p, size_t panel) {
  return MIN(panel / p->panels * p->call->weights.block_outputs + panel % p->panels * p->width, p->call->weights.outputs);
}

static void run_task(const plan *p, size_t index) {
  const ck_sparse_linear *call = p->call;
  const size_t i = index / p->groups * p->rows, begin = index % p->groups * p->group;
  const size_t end = MIN(begin + p->group, p->all_panels);
  float *a = p->scratch + ck_participant() * p->piece, *c = a + p->a_rs * p->rows, *residual = c + p->c_rs * p->rows;
  ck_sparse_block block = {
      .weights = &call->weights,
      .m = MIN(p->rows, call->m - i),
      .a = p->a_rs ? a : (const float *)call->x + i * call->x_rs,
      .a_rs = p->a_rs ? p->a_rs : call->x_rs,
      .c = c,
      .c_rs = p->c_rs,
      .alpha = call->alpha,
      .residual_rs = p->c_rs ? p->c_rs : call->residual_rs,
      .activation = call->activation,
  };
  if (p->a_rs) staging_in(p->table, call->x_type, call->x, call->x_rs, i, 0, block.m, call->weights.inputs, a, p->a_rs);
  for (block.first = begin; block.first < end; block.first = block.last) {
    block.last = MIN(block.first + p->step, end);
    const size_t j = output_of(p, block.first), n = output_of(p, block.last) - j;
    block.bias = call->bias ? call->bias + j : 0;
    if (!p->c_rs) {
      block.c = (float *)call->y + i * call->y_rs + j, block.c_rs = call->y_rs;
      block.residual = call->residual ? (const float *)call->residual + i * call->residual_rs + j : 0;
    } else if (call->residual) {
      staging_in(p->table, call->residual_type, call->residual, call->residual_rs, i, j, block.m, n, residual, p->c_rs);
      block.residual = residual;
    }
    p->table->f32_sparse_block(&block);
    if (p->c_rs) staging_out(p->table, call->y_type, c, p->c_rs, block.m, n, call->y, call->y_rs, i, j);
  }
}

static void run_tasks(const void *context, size_t first, size_t last) {
  for (size_t index = first; index < last; index++) run_task(context, index);
}

int32_t ck_f32_sparse_linear(const ck_kernels *table, const ck_sparse_linear *call, size_t threads) {
  const ck_sparse_weights *w = &call->weights;
  if (!call->m || !w->outputs) return 0;
  plan p = {.table = table, .call = call, .width = ck_sparse_width(table, w->block_outputs)};
  p.panels = pieces_of(w->block_outputs, p.width);
  const size_t block_rows = pieces_of(w->outputs, w->block_outputs), blocks = (size_t)w->offsets[block_rows];
  p.all_panels = block_rows * p.panels;
  p.rows = balanced(call->m, MAX(A_FLOATS / MAX(w->inputs, 1), table->gemm_mr), table->gemm_mr);
  p.group = p.all_panels;
  const size_t work = MAX(call->m, 4) * blocks * w->block_outputs * w->block_inputs;
  if (work < CALLER_WORK) threads = 1;
  const size_t row_tasks = pieces_of(call->m, p.rows);
  if (threads > 1) p.group = MAX(pieces_of(p.all_panels, pieces_of(threads * TASKS_A_THREAD, row_tasks)), 1);
  p.groups = pieces_of(p.all_panels, p.group);

  const int typed_y = call->y_type != CK_F32 || (call->residual && call->residual_type != CK_F32);
  p.step = typed_y ? MIN(p.group, MAX(STAGED_COLUMNS / p.width, 1)) : p.group;
  if (call->x_type != CK_F32 || (call->m > table->gemm_mr && call->x_rs % ALIASING_STRIDE == 0))
    p.a_rs = round_up(w->inputs, 16) + 16 * (w->inputs % ALIASING_STRIDE == 0);
  if (typed_y) p.c_rs = round_up(p.step * p.width, 16);
  p.piece = p.rows * (p.a_rs + 2 * p.c_rs);
  const size_t tasks = row_tasks * p.groups;
  if (p.piece && !(p.scratch = ck_scratch(CK_SCRATCH_OPERATION, p.piece * MAX(MIN(threads, tasks), 1)))) return -1;
  ck_parallel(tasks, 1, threads, run_tasks, &p);
  return 0;
}

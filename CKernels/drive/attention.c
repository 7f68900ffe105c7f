// Attention over ragged sequences: one task for each (sequence, heads of a group, run of query rows); the heads of a task read
// the same packed keys. A row's bits depend on none of these cuts.
#include <stddef.h>

#include "../include/ck_kernels.h"
#include "../include/ck_parallel.h"

enum {
  MOST_ROWS = 192,          // query rows of a head that share one packing of the keys
  MOST_SHARED = 768,        // and of all heads of a task
  LEAST_ROWS = 48,          // never cut finer than this to feed idle threads
  GRAIN_PRODUCTS = 1 << 18  // multiplications worth handing to another thread
};

typedef struct attention_job {
  const ck_kernels *table;
  const ck_attention *call;
  size_t group;       // query heads of a key head
  size_t share;       // most of them in a task
  size_t head_tasks;  // tasks of a group: group / share, rounded up
  size_t rows;        // most query rows of a task
  size_t pieces;      // tasks of the longest sequence and one head
  float *scratch;     // [participants, scratch_each]
  size_t scratch_each;
} attention_job;

static size_t round_up(size_t n, size_t to) { return (n + to - 1) / to * to; }
static size_t pieces_of(size_t n, size_t size) { return (n + size - 1) / size; }

// Keys and values of a block, scores and products of a row group, maximum and sum of each row; where an operand is not f32 also
// a block, a row group and a row of the mask widened, and the sums of each row: the layout in body/attention.h.
size_t ck_attention_scratch(const ck_kernels *table, size_t rows, size_t heads, size_t head_dim, int32_t typed) {
  const size_t width = round_up(head_dim, table->gemm_nr), keys = table->attention_keys;
  const size_t f32 = 2 * keys * width + table->gemm_mr * (keys + width) + round_up(2 * rows * heads, 16);
  return f32 + (typed ? (keys + table->gemm_mr + rows * heads) * width + keys : 0);
}

static size_t key_count(const ck_attention *a, size_t s) {
  return (size_t)(a->kv_counts ? a->kv_counts[s] : a->kv_offsets[s + 1] - a->kv_offsets[s]);
}

static const float *element(const float *x, ck_dtype type, size_t at) {
  return (const float *)((const char *)x + at * ck_dtype_size(type));
}

// Query rows [i, i + rows) of heads [h, h + heads), which share a key head.
static ck_attention_block block_of(const ck_attention *a, size_t s, size_t h, size_t heads, size_t kv_head, size_t i,
                                   size_t rows) {
  const size_t q0 = (size_t)a->q_offsets[s], k0 = (size_t)a->kv_offsets[s], kv_rows = key_count(a, s);
  const size_t q_rows = (size_t)a->q_offsets[s + 1] - q0;
  ck_attention_block block = {
      .rows = rows,
      .heads = heads,
      .kv_rows = kv_rows,
      .head_dim = a->head_dim,
      .q = element(a->q, a->q_type, (q0 + i) * a->q_rs + h * a->q_hs),
      .q_rs = a->q_rs,
      .q_hs = a->q_hs,
      .k = element(a->k, a->k_type, k0 * a->k_rs + kv_head * a->k_hs),
      .k_rs = a->k_rs,
      .v = element(a->v, a->v_type, k0 * a->v_rs + kv_head * a->v_hs),
      .v_rs = a->v_rs,
      .o = (float *)element(a->o, a->o_type, (q0 + i) * a->o_rs + h * a->o_hs),
      .o_rs = a->o_rs,
      .o_hs = a->o_hs,
      .q_type = a->q_type,
      .k_type = a->k_type,
      .v_type = a->v_type,
      .o_type = a->o_type,
      .mask_type = a->mask_type,
      .scale = a->scale,
      .cap = a->cap,
      .position = (ptrdiff_t)(i + kv_rows) - (ptrdiff_t)q_rows,
      .step = 1,
      .before = a->before,
      .after = a->after,
      .slope = a->slopes ? a->slopes + h : NULL,
      .sink = a->sinks ? a->sinks + h : NULL,
      .head_hs = 1,
      .mask = a->mask ? element(a->mask, a->mask_type, s * a->mask_ss + h * a->mask_hs + i * a->mask_rs) : NULL,
      .mask_rs = a->mask_rs,
      .mask_hs = a->mask_hs,
      .lse = a->lse ? a->lse + (q0 + i) * a->lse_rs + h * a->lse_hs : NULL,
      .lse_rs = a->lse_rs,
      .lse_hs = a->lse_hs,
  };
  if (q_rows == 1) {  // the heads of a single query become the rows
    block.rows = heads, block.heads = 1, block.step = 0;
    block.q_rs = block.q_hs, block.o_rs = block.o_hs, block.head_rs = block.head_hs;
    block.mask_rs = block.mask_hs, block.lse_rs = block.lse_hs;
  }
  return block;
}

static void attention_task(const void *context, size_t first, size_t last) {
  const attention_job *job = context;
  const ck_attention *a = job->call;
  for (size_t item = first; item < last; item++) {
    const size_t piece = item % job->pieces, part = item / job->pieces % job->head_tasks;
    const size_t kv_head = item / job->pieces / job->head_tasks % a->kv_heads;
    const size_t s = item / job->pieces / job->head_tasks / a->kv_heads;
    const size_t q_rows = (size_t)(a->q_offsets[s + 1] - a->q_offsets[s]);
    // Equal pieces: a last one of a few rows would pack the keys for little.
    const size_t pieces = pieces_of(q_rows, job->rows);
    if (piece >= pieces) continue;
    const size_t rows = round_up(pieces_of(q_rows, pieces), job->table->gemm_mr), i = piece * rows;
    if (i >= q_rows) continue;
    const size_t h = part * job->share, heads = job->group - h < job->share ? job->group - h : job->share;
    ck_attention_block block = block_of(a, s, kv_head * job->group + h, heads, kv_head, i, q_rows - i < rows ? q_rows - i : rows);
    block.scratch = job->scratch + ck_participant() * job->scratch_each;
    job->table->f32_attention_block(&block);
  }
}

// Halves the rows of a task, then its heads, until every thread has some.
static void cut(attention_job *j, size_t longest, size_t threads) {
  const size_t groups = j->call->sequences * j->call->kv_heads, mr = j->table->gemm_mr;
  j->share = j->group < MOST_SHARED / mr ? j->group : MOST_SHARED / mr;
  j->rows = MOST_SHARED / j->share < MOST_ROWS ? MOST_SHARED / j->share / mr * mr : MOST_ROWS;
  for (;;) {
    j->pieces = pieces_of(longest, j->rows), j->head_tasks = pieces_of(j->group, j->share);
    if (threads <= 1 || groups * j->head_tasks * j->pieces >= 2 * threads) return;
    if (j->rows / 2 >= mr && j->rows * j->share > LEAST_ROWS && longest > 1)
      j->rows /= 2;
    else if (j->share > 1)
      j->share = (j->share + 1) / 2;
    else
      return;
  }
}

int32_t ck_f32_attention(const ck_kernels *table, const ck_attention *call, size_t threads) {
  size_t longest = 0, products = 0;
  for (size_t s = 0; s < call->sequences; s++) {
    const size_t q_rows = (size_t)(call->q_offsets[s + 1] - call->q_offsets[s]);
    if (q_rows > longest) longest = q_rows;
    products += 2 * q_rows * key_count(call, s) * call->head_dim * call->q_heads;
  }
  if (!call->sequences || !call->q_heads || !longest) return 0;
  attention_job job = {.table = table, .call = call, .group = call->q_heads / call->kv_heads};
  cut(&job, longest, threads);
  const int32_t typed = call->q_type != CK_F32 || call->k_type != CK_F32 || call->v_type != CK_F32 || call->o_type != CK_F32 ||
                        call->mask_type != CK_F32;
  // 16 floats keep every participant's piece on a cache line of its own.
  const size_t rows = longest < job.rows ? longest : job.rows + table->gemm_mr;
  job.scratch_each = round_up(ck_attention_scratch(table, rows, job.share, call->head_dim, typed), 16);
  job.scratch = ck_scratch(CK_SCRATCH_ATTENTION, (threads ? threads : 1) * job.scratch_each);
  if (!job.scratch) return -1;
  const size_t items = call->sequences * call->kv_heads * job.head_tasks * job.pieces, each = products / items + 1;
  ck_parallel(items, each >= GRAIN_PRODUCTS ? 1 : GRAIN_PRODUCTS / each + 1, threads, attention_task, &job);
  return 0;
}

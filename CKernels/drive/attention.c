// Attention over ragged sequences: one task for each (sequence, query head, run of query rows); a row's bits depend on none.
#include <stddef.h>

#include "../include/ck_drive.h"
#include "../include/ck_parallel.h"

enum {
  MOST_ROWS = 192,          // query rows that share one packing of the keys
  LEAST_ROWS = 48,          // never cut finer than this to feed idle threads
  GRAIN_PRODUCTS = 1 << 18  // multiplications worth handing to another thread
};

typedef struct attention_job {
  const ck_kernels *table;
  const ck_attention *call;
  size_t rows;    // most query rows of a task
  size_t pieces;  // tasks of the longest sequence and one head
  float *scratch;  // [participants, scratch_each]
  size_t scratch_each;
} attention_job;

static size_t round_up(size_t n, size_t to) { return (n + to - 1) / to * to; }

// Keys and values of a block, scores and products of a row group, maximum and sum of each row: the layout in body/attention.h.
size_t ck_attention_scratch(const ck_kernels *table, size_t q_rows, size_t head_dim) {
  const size_t width = round_up(head_dim, table->gemm_nr), keys = table->attention_keys;
  return 2 * keys * width + table->gemm_mr * (keys + width) + 2 * q_rows;
}

static void attention_task(const void *context, size_t first, size_t last) {
  const attention_job *job = context;
  const ck_attention *a = job->call;
  for (size_t item = first; item < last; item++) {
    const size_t piece = item % job->pieces, h = item / job->pieces % a->q_heads, s = item / job->pieces / a->q_heads;
    const size_t q0 = (size_t)a->q_offsets[s], q_rows = (size_t)a->q_offsets[s + 1] - q0;
    const size_t k0 = (size_t)a->kv_offsets[s], kv_rows = (size_t)a->kv_offsets[s + 1] - k0;
    // Equal pieces: a last one of a few rows would pack the keys for little.
    const size_t pieces = (q_rows + job->rows - 1) / job->rows;
    if (piece >= pieces) continue;
    const size_t rows = round_up((q_rows + pieces - 1) / pieces, job->table->gemm_mr), i = piece * rows;
    if (i >= q_rows) continue;
    const size_t kv_head = h / (a->q_heads / a->kv_heads);
    ck_attention_block block = {
        .q_rows = q_rows - i < rows ? q_rows - i : rows,
        .kv_rows = kv_rows,
        .head_dim = a->head_dim,
        .q = a->q + (q0 + i) * a->q_rs + h * a->q_hs,
        .q_rs = a->q_rs,
        .k = a->k + k0 * a->k_rs + kv_head * a->k_hs,
        .k_rs = a->k_rs,
        .v = a->v + k0 * a->v_rs + kv_head * a->v_hs,
        .v_rs = a->v_rs,
        .o = a->o + (q0 + i) * a->o_rs + h * a->o_hs,
        .o_rs = a->o_rs,
        .scale = a->scale,
        .diagonal = a->causal ? (ptrdiff_t)i + (ptrdiff_t)kv_rows - (ptrdiff_t)q_rows : CK_NO_DIAGONAL,
        .mask = a->mask ? a->mask + s * a->mask_ss + h * a->mask_hs + i * a->mask_rs : NULL,
        .mask_rs = a->mask_rs,
        .scratch = job->scratch + ck_participant() * job->scratch_each,
    };
    job->table->f32_attention_block(&block);
  }
}

int32_t ck_f32_attention(const ck_kernels *table, const ck_attention *call, size_t threads) {
  size_t longest = 0, products = 0;
  for (size_t s = 0; s < call->sequences; s++) {
    const size_t q_rows = (size_t)(call->q_offsets[s + 1] - call->q_offsets[s]);
    const size_t kv_rows = (size_t)(call->kv_offsets[s + 1] - call->kv_offsets[s]);
    if (q_rows > longest) longest = q_rows;
    products += 2 * q_rows * kv_rows * call->head_dim * call->q_heads;
  }
  const size_t heads = call->sequences * call->q_heads;
  if (!heads || !longest) return 0;
  size_t rows = MOST_ROWS;
  while (rows > LEAST_ROWS && heads * ((longest + rows - 1) / rows) < 2 * threads) rows /= 2;
  // 16 floats keep every participant's piece on a cache line of its own.
  const size_t each_scratch = round_up(ck_attention_scratch(table, rows + table->gemm_mr, call->head_dim), 16);
  float *scratch = ck_scratch(CK_SCRATCH_ATTENTION, (threads ? threads : 1) * each_scratch);
  if (!scratch) return -1;
  const attention_job job = {table, call, rows, (longest + rows - 1) / rows, scratch, each_scratch};
  const size_t items = heads * job.pieces, each = products / items + 1;
  ck_parallel(items, each >= GRAIN_PRODUCTS ? 1 : GRAIN_PRODUCTS / each + 1, threads, attention_task, &job);
  return 0;
}

// Attention over ragged sequences: one task for each (sequence, heads of a group, run of query rows); the heads of a task read
// the same packed keys. A row's bits depend on none of these cuts. With a pattern, a run ends where a block row does. The keys of
// a single query are cut as well, into parts that depend on nothing but how many it sees; where all queries are single ones, a
// task is a part of every key head, or of some of them, where those of a key lie side by side in memory.
#include <stddef.h>

#include "../include/ck_parallel.h"
#include "staging.h"

enum {
  MOST_ROWS = 384,  // query rows of a head that share one packing of the keys
  MOST_SHARED = 768,  // and of all heads of a task
  LEAST_ROWS = 48,  // never cut finer than this to feed idle threads
  GRAIN_PRODUCTS = 1 << 18,  // multiplications worth handing to another thread
  PART_KEYS = 512,  // least keys of a part
  LEAST_TILE = 4,  // keys of every head that a single query meets at once: few, so that
  TILE_BYTES = 1 << 16  // they, their values and the next of both stay in L2, each of so many bytes
};

typedef struct attention_job {
  const ck_kernels *table;
  const ck_attention *call;
  size_t group;  // query heads of a key head
  size_t share;  // most of them in a task
  size_t head_tasks;  // tasks of a group: group / share, rounded up
  size_t key_heads;  // most key heads in a task
  size_t rows;  // most query rows of a task
  size_t span;  // query rows of a block row, or of the longest sequence where there is no pattern
  size_t spans;  // of the longest sequence
  size_t pieces;  // tasks of a span
  float *scratch;  // [participants, scratch_each]
  size_t scratch_each;
  int spread;  // whether every query is a single one: each part of its keys is a task of its own
  size_t tile;  // of a single query
  float *parts;  // [participants, or units where parts are spread, parts_each]: sums and states
  size_t most_parts;  // of any sequence
  size_t parts_each;
  size_t units;  // of a sequence
} attention_job;

// Keys and values of a block, scores and products of a row group, maximum and sum of each row; where an operand is not f32 also
// a block, a row group and a row of the mask widened, and the sums of each row: the layout in body/attention.h.
size_t ck_attention_scratch(const ck_kernels *table, size_t rows, size_t heads, size_t head_dim, int32_t typed) {
  const size_t width = round_up(head_dim, table->gemm_nr), keys = table->attention_keys;
  const size_t f32 = 2 * keys * width + table->attention_rows * (keys + width) + round_up(2 * rows * heads, 16);
  return f32 + (typed ? (keys + table->gemm_mr + rows * heads) * width + keys : 0);
}

static size_t key_count(const ck_attention *a, size_t s) {
  return (size_t)(a->kv_counts ? a->kv_counts[s] : a->kv_offsets[s + 1] - a->kv_offsets[s]);
}

static size_t query_count(const ck_attention *a, size_t s) { return (size_t)(a->q_offsets[s + 1] - a->q_offsets[s]); }

// The keys that a single query sees, in parts [first + p size, first + (p + 1) size), the last one shorter.
typedef struct key_parts {
  size_t first, size, count, last;
} key_parts;

static size_t clamped(ptrdiff_t key, size_t keys) { return key <= 0 ? 0 : MIN((size_t)key, keys); }

static key_parts parts_of(const ck_attention *a, size_t s, size_t block) {
  const size_t keys = key_count(a, s);
  const ptrdiff_t at = (ptrdiff_t)keys - 1;
  const size_t seen = a->before == CK_EVERY_KEY ? 0 : clamped(at - (ptrdiff_t)a->before, keys);
  key_parts p = {.first = seen / block * block};
  p.last = a->after == CK_EVERY_KEY ? keys : clamped(at + (ptrdiff_t)a->after + 1, keys);
  const size_t blocks = p.last > p.first ? pieces_of(p.last - p.first, block) : 0;
  p.size = MAX(pieces_of(blocks, CK_ATTENTION_PARTS), pieces_of(PART_KEYS, block)) * block;
  p.count = pieces_of(blocks * block, p.size);
  return p;
}

// Heads of a group of a sequence, or of several: the work of a task that is not cut into rows or parts.
typedef struct unit {
  size_t s, kv_head, key_heads, h, heads;  // heads [h, h + heads) of each group
} unit;

static unit unit_of(const attention_job *job, size_t index) {
  const size_t h = index % job->head_tasks * job->share, all = job->call->kv_heads, runs = pieces_of(all, job->key_heads);
  const size_t run = index / job->head_tasks, kv_head = run % runs * job->key_heads;
  return (unit){run / runs, kv_head, MIN(all - kv_head, job->key_heads), h, MIN(job->group - h, job->share)};
}

// Query rows [i, i + rows) of a unit of one key head.
static ck_attention_block block_of(const attention_job *job, unit u, size_t i, size_t rows) {
  const ck_attention *a = job->call;
  const size_t s = u.s, kv_head = u.kv_head, h = kv_head * job->group + u.h;
  const size_t q0 = (size_t)a->q_offsets[s], k0 = (size_t)a->kv_offsets[s], kv_rows = key_count(a, s);
  const size_t q_rows = (size_t)a->q_offsets[s + 1] - q0;
  ck_attention_block block = {
      .rows = rows,
      .heads = u.heads,
      .kv_rows = kv_rows,
      .head_dim = a->head_dim,
      .q = staging_element(a->q_type, a->q, (q0 + i) * a->q_rs + h * a->q_hs),
      .q_rs = a->q_rs,
      .q_hs = a->q_hs,
      .k = staging_element(a->k_type, a->k, k0 * a->k_rs + kv_head * a->k_hs),
      .k_rs = a->k_rs,
      .v = staging_element(a->v_type, a->v, k0 * a->v_rs + kv_head * a->v_hs),
      .v_rs = a->v_rs,
      .o = (float *)staging_element(a->o_type, a->o, (q0 + i) * a->o_rs + h * a->o_hs),
      .o_rs = a->o_rs,
      .o_hs = a->o_hs,
      .q_type = a->q_type,
      .k_type = a->k_type,
      .v_type = a->v_type,
      .o_type = a->o_type,
      .mask_type = a->mask_type,
      .k_scales = a->k_type == CK_I8 ? a->k_scales + k0 + kv_head * a->k_scale_hs : NULL,
      .v_scales = a->v_type == CK_I8 ? a->v_scales + k0 + kv_head * a->v_scale_hs : NULL,
      .scale = a->scale,
      .cap = a->cap,
      .position = (ptrdiff_t)(i + kv_rows) - (ptrdiff_t)q_rows,
      .step = 1,
      .before = a->before,
      .after = a->after,
      .list_keys = a->pattern.keys,
      .slope = a->slopes ? a->slopes + h : NULL,
      .sink = a->sinks ? a->sinks + h : NULL,
      .head_hs = 1,
      .mask = a->mask ? staging_element(a->mask_type, a->mask, s * a->mask_ss + h * a->mask_hs + i * a->mask_rs) : NULL,
      .mask_rs = a->mask_rs,
      .mask_hs = a->mask_hs,
      .lse = a->lse ? a->lse + (q0 + i) * a->lse_rs + h * a->lse_hs : NULL,
      .lse_rs = a->lse_rs,
      .lse_hs = a->lse_hs,
  };
  if (a->pattern.keys) {
    const int32_t *listed = a->pattern.offsets + h * a->pattern.hs + i / a->pattern.queries;
    block.list = a->pattern.columns + listed[0], block.listed = (size_t)(listed[1] - listed[0]);
  }
  return block;
}

// A unit whose query is a single one: its heads become the rows, and key heads the heads.
static ck_attention_block single_of(const attention_job *job, unit u) {
  const ck_attention *a = job->call;
  ck_attention_block block = block_of(job, u, 0, 1);
  block.rows = u.heads, block.heads = u.key_heads, block.step = 0, block.tile = job->tile;
  block.k_hs = a->k_hs, block.v_hs = a->v_hs, block.k_scale_hs = a->k_scale_hs, block.v_scale_hs = a->v_scale_hs;
  block.q_rs = a->q_hs, block.o_rs = a->o_hs, block.head_rs = 1, block.mask_rs = a->mask_hs, block.lse_rs = a->lse_hs;
  block.q_hs *= job->group, block.o_hs *= job->group, block.head_hs *= job->group;
  block.mask_hs *= job->group, block.lse_hs *= job->group;
  return block;
}

static void run_block(const attention_job *job, ck_attention_block block) {
  block.scratch = job->scratch + ck_participant() * job->scratch_each;
  job->table->f32_attention_block(&block);
}

// Part p of the keys of a single query: a block of its own, which leaves sums and states in `room`.
static void run_part(const attention_job *job, unit u, const key_parts *cut, size_t p, float *room) {
  ck_attention_block block = single_of(job, u);
  const size_t d = block.head_dim, rows = u.key_heads * u.heads;
  block.kv_first = cut->first + p * cut->size, block.kv_rows = MIN(block.kv_first + cut->size, cut->last);
  if (p) block.sink = NULL;  // it counts once
  block.o = room + p * rows * d, block.o_rs = d, block.o_hs = u.heads * d, block.o_type = CK_F32, block.lse = NULL;
  block.state = room + cut->count * rows * d + 2 * p * rows;
  run_block(job, block);
}

static void merge_parts(const attention_job *job, unit u, const key_parts *cut, const float *room) {
  const ck_attention_block block = single_of(job, u);
  const size_t rows = u.key_heads * u.heads;  // heads of the query side by side: more key heads than one have all of theirs
  const ck_attention_merge merge = {.parts = cut->count,
                                    .rows = rows,
                                    .head_dim = block.head_dim,
                                    .sums = room,
                                    .states = room + cut->count * rows * block.head_dim,
                                    .o = block.o,
                                    .o_rs = block.o_rs,
                                    .o_type = block.o_type,
                                    .lse = block.lse,
                                    .lse_rs = block.lse_rs};
  job->table->f32_attention_merge(&merge);
}

static void part_task(const void *context, size_t first, size_t last) {
  const attention_job *job = context;
  for (size_t item = first; item < last; item++) {
    const size_t s = item / job->units / job->most_parts, p = item / job->units % job->most_parts;
    const size_t index = s * job->units + item % job->units;
    const unit u = unit_of(job, index);
    const key_parts cut = parts_of(job->call, u.s, job->table->attention_keys);
    if (!query_count(job->call, u.s)) continue;
    if (cut.count > 1 && p < cut.count) run_part(job, u, &cut, p, job->parts + index * job->parts_each);
    if (cut.count <= 1 && !p) run_block(job, single_of(job, u));
  }
}

static void merge_task(const void *context, size_t first, size_t last) {
  const attention_job *job = context;
  for (size_t index = first; index < last; index++) {
    const unit u = unit_of(job, index);
    const key_parts cut = parts_of(job->call, u.s, job->table->attention_keys);
    if (cut.count > 1 && query_count(job->call, u.s)) merge_parts(job, u, &cut, job->parts + index * job->parts_each);
  }
}

static void attention_task(const void *context, size_t first, size_t last) {
  const attention_job *job = context;
  const ck_attention *a = job->call;
  for (size_t item = first; item < last; item++) {
    const unit u = unit_of(job, item / job->pieces / job->spans);
    const size_t q_rows = query_count(a, u.s), top = item / job->pieces % job->spans * job->span;
    if (top >= q_rows) continue;
    // Equal pieces: a last one of a few rows would pack the keys for little.
    const size_t all = MIN(q_rows - top, job->span);
    const size_t rows = round_up(pieces_of(all, pieces_of(all, job->rows)), job->table->gemm_mr);
    const size_t within = item % job->pieces * rows, i = top + within;
    if (within >= all) continue;
    const key_parts cut = parts_of(a, u.s, job->table->attention_keys);
    if (q_rows == 1 && cut.count > 1) {
      float *room = job->parts + ck_participant() * job->parts_each;
      for (size_t p = 0; p < cut.count; p++) run_part(job, u, &cut, p, room);
      merge_parts(job, u, &cut, room);
      continue;
    }
    run_block(job, q_rows == 1 ? single_of(job, u) : block_of(job, u, i, MIN(all - within, rows)));
  }
}

// Whether the heads of a key lie side by side, and so do their values. Where those of a head do, it is read alone.
static int is_side_by_side(const ck_attention *a) { return a->kv_heads > 1 && a->k_hs < a->k_rs && a->v_hs < a->v_rs; }

static size_t tile_of(const ck_kernels *table, const ck_attention *a) {
  const size_t bytes = a->kv_heads * a->head_dim * ck_dtype_size(a->k_type);
  size_t tile = table->attention_keys;
  if (!is_side_by_side(a)) return tile;
  while (tile > LEAST_TILE && tile * bytes > TILE_BYTES) tile /= 2;
  return tile;
}

static size_t units_of(const attention_job *j) { return pieces_of(j->call->kv_heads, j->key_heads) * j->head_tasks; }

// Halves the key heads of a part, then the heads of each, until every thread has some.
static void cut_singles(attention_job *j, size_t parts, size_t threads) {
  const ck_attention *a = j->call;
  if (j->share == j->group && !a->pattern.hs && is_side_by_side(a)) j->key_heads = a->kv_heads;
  for (;;) {
    j->head_tasks = pieces_of(j->group, j->share);
    const size_t tasks = parts * units_of(j);
    if (threads > 1 && tasks < 2 * threads && j->key_heads > 1)
      j->key_heads = (j->key_heads + 1) / 2;
    else if (tasks < threads && j->share > 1)
      j->share = (j->share + 1) / 2;
    else
      return;
  }
}

// Halves the rows of a task, then its heads, until every thread has some.
static void cut(attention_job *j, size_t longest, size_t threads) {
  const ck_attention_pattern *pattern = &j->call->pattern;
  j->span = pattern->keys ? MIN(pattern->queries, longest) : longest, j->spans = pieces_of(longest, j->span);
  const size_t groups = j->call->sequences * j->call->kv_heads, mr = j->table->gemm_mr;
  j->rows = MOST_SHARED / j->share < MOST_ROWS ? MOST_SHARED / j->share / mr * mr : MOST_ROWS;
  for (;;) {
    j->pieces = pieces_of(j->span, j->rows), j->head_tasks = pieces_of(j->group, j->share);
    if (threads <= 1 || groups * j->head_tasks * j->spans * j->pieces >= 2 * threads) return;
    if (j->rows / 2 >= mr && j->rows * j->share > LEAST_ROWS && longest > 1)
      j->rows /= 2;
    else if (j->share > 1)
      j->share = (j->share + 1) / 2;
    else
      return;
  }
}

// Pairs of a query and a key that a head of a sequence multiplies at most.
static size_t pairs_of(const ck_attention *a, size_t s) {
  const size_t q_rows = query_count(a, s), all = q_rows * key_count(a, s);
  const ck_attention_pattern *p = &a->pattern;
  if (!p->keys) return all;
  return MIN(all, (size_t)(p->offsets[pieces_of(q_rows, p->queries)] - p->offsets[0]) * p->queries * p->keys);
}

int32_t ck_f32_attention(const ck_kernels *table, const ck_attention *call, size_t threads) {
  size_t longest = 0, products = 0, all_parts = 0, most_parts = 1;
  for (size_t s = 0; s < call->sequences; s++) {
    const size_t q_rows = query_count(call, s), count = q_rows == 1 ? parts_of(call, s, table->attention_keys).count : 0;
    if (q_rows > longest) longest = q_rows;
    all_parts += q_rows == 1 ? MAX(count, 1) : 0, most_parts = MAX(most_parts, count);
    products += 2 * pairs_of(call, s) * call->head_dim * call->q_heads;
  }
  if (!call->sequences || !call->q_heads || !longest) return 0;
  attention_job job = {.table = table, .call = call, .group = call->q_heads / call->kv_heads, .key_heads = 1};
  job.spread = longest == 1, job.tile = tile_of(table, call), job.most_parts = most_parts;
  job.share = call->pattern.hs ? 1 : MIN(job.group, MOST_SHARED / table->gemm_mr);  // a pattern of its own: other keys
  if (job.spread)
    cut_singles(&job, all_parts, threads);
  else
    cut(&job, longest, threads);
  const int32_t typed = call->q_type != CK_F32 || call->k_type != CK_F32 || call->v_type != CK_F32 || call->o_type != CK_F32 ||
                        call->mask_type != CK_F32;
  // 16 floats keep every participant's piece on a cache line of its own.
  const size_t rows = job.spread || longest < job.rows ? longest : job.rows + table->gemm_mr;
  job.units = units_of(&job);
  const size_t participants = threads ? threads : 1, units = call->sequences * job.units;
  const size_t single = job.share * job.key_heads;  // query heads of a single query in a task
  job.scratch_each = round_up(ck_attention_scratch(table, rows, single, call->head_dim, typed), 16);
  job.parts_each = most_parts > 1 ? round_up(most_parts * single * (call->head_dim + 2), 16) : 0;
  const size_t scratch = participants * job.scratch_each, room = (job.spread ? units : participants) * job.parts_each;
  job.scratch = ck_scratch(CK_SCRATCH_ATTENTION, scratch + room);
  if (!job.scratch) return -1;
  job.parts = job.scratch + scratch;
  const size_t items = units * (job.spread ? most_parts : job.spans * job.pieces);
  ck_parallel(items, pieces_of(items, products / GRAIN_PRODUCTS + 1), threads, job.spread ? part_task : attention_task, &job);
  if (job.spread && most_parts > 1) ck_parallel(units, 1, threads, merge_task, &job);
  return 0;
}

// Top-k and scatter-add on many threads: rows in pieces; destinations in pieces of rows and columns.
#include <string.h>

#include "../include/ck_drive.h"
#include "../include/ck_parallel.h"
#include "staging.h"

enum {
  CALLER_ELEMENTS = 1 << 15,  // about 10 microseconds of either
  PIECES_A_THREAD = 4,
  LEAST_COLUMNS = 256,  // of a piece of scattered rows
};

typedef struct top_job {
  const ck_kernels *table;
  const ck_top_k *call;
  float *heaps;  // [participants, each] floats
  size_t each;
} top_job;

static void run_top(const void *context, size_t first, size_t last) {
  const top_job *j = context;
  j->table->f32_top_k(j->call, first, last, (uint64_t *)(void *)(j->heaps + ck_participant() * j->each));
}

int32_t ck_f32_top_k(const ck_kernels *table, const ck_top_k *call, size_t threads) {
  if (!call->rows || !call->k) return 0;
  if (call->rows * call->n < CALLER_ELEMENTS) threads = 1;
  top_job job = {table, call, 0, round_up(2 * call->k, 16)};
  job.heaps = ck_scratch(CK_SCRATCH_OPERATION, job.each * MAX(MIN(threads, call->rows), 1));
  if (!job.heaps) return -1;
  ck_parallel(call->rows, pieces_of(call->rows, MAX(threads, 1) * PIECES_A_THREAD), threads, run_top, &job);
  return 0;
}

typedef struct scatter_job {
  const ck_kernels *table;
  const ck_scatter_add *call;
  const int32_t *sources, *offsets;  // as in ck_scatter_piece
  size_t rows, columns;              // of a piece
  size_t across;                     // pieces of a row
} scatter_job;

static void run_scatter(const void *context, size_t first, size_t last) {
  const scatter_job *j = context;
  for (size_t index = first; index < last; index++) {
    const size_t row = index / j->across * j->rows, column = index % j->across * j->columns;
    const ck_scatter_piece piece = {
        .sources = j->sources,
        .offsets = j->offsets,
        .first = row,
        .last = MIN(row + j->rows, j->call->y_rows),
        .column = column,
        .columns = MIN(j->columns, j->call->n - column),
    };
    j->table->f32_scatter_add(j->call, &piece);
  }
}

// A counting sort of the rows of x by destination, which keeps their order. offsets has y_rows + 2 entries.
static void sort_sources(const ck_scatter_add *call, int32_t *sources, int32_t *offsets) {
  int32_t *next = offsets + 1;  // of destination d, while filling; the first of d + 1 once filled
  memset(offsets, 0, (call->y_rows + 2) * sizeof *offsets);
  for (size_t i = 0; i < call->rows; i++) next[call->ids[i] + 1]++;
  for (size_t d = 1; d <= call->y_rows; d++) next[d] += next[d - 1];
  for (size_t i = 0; i < call->rows; i++) sources[next[call->ids[i]]++] = (int32_t)i;
}

int32_t ck_f32_scatter_add(const ck_kernels *table, const ck_scatter_add *call, size_t threads) {
  if (!call->rows || !call->n) return 0;
  int32_t *offsets = (int32_t *)(void *)ck_scratch(CK_SCRATCH_OPERATION, call->rows + call->y_rows + 2);
  if (!offsets) return -1;
  int32_t *sources = offsets + call->y_rows + 2;
  sort_sources(call, sources, offsets);
  if (call->rows * call->n < CALLER_ELEMENTS) threads = 1;
  scatter_job job = {table, call, sources, offsets, call->y_rows, call->n, 1};
  if (threads > 1) {
    job.columns = balanced(call->n, MAX(pieces_of(call->n, threads), LEAST_COLUMNS), 16);
    job.across = pieces_of(call->n, job.columns);
    job.rows = pieces_of(call->y_rows, pieces_of(threads * PIECES_A_THREAD, job.across));
  }
  ck_parallel(pieces_of(call->y_rows, job.rows) * job.across, 1, threads, run_scatter, &job);
  return 0;
}

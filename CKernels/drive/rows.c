// Row kernels on many threads: rows in pieces, small work on the caller. Operands that are not f32 are widened into scratch, a
// few rows at a time so that they stay in L1, and results narrowed from there: kernels see floats alone.
#include "../include/ck_drive.h"
#include "../include/ck_parallel.h"
#include "staging.h"

enum {
  CALLER_ELEMENTS = 1 << 15,  // about 20 microseconds of a typical row kernel
  PIECE_ELEMENTS = 1 << 13,
  PIECES_A_THREAD = 4,
  CHUNK_ELEMENTS = 1 << 11,  // of an operand that is not f32
  OPERANDS = 4,
};

typedef struct job {
  const ck_kernels *table;
  ck_rows_kernel kernel;
  const ck_rows *call;
  size_t chunk;   // rows widened at a time; 0 where everything is f32
  size_t width;   // of a row in scratch: the wider of x and y
  float *scratch;  // [participants, OPERANDS, chunk, width]
} job;

// Rows [i, i + rows) through scratch, as a call of their own.
static void run_chunk(const job *j, size_t i, size_t rows) {
  const ck_rows *c = j->call;
  const ck_kernels *table = j->table;
  const size_t n = c->n;
  float *own = j->scratch + ck_participant() * OPERANDS * j->chunk * j->width;
  float *operand[OPERANDS];
  for (size_t o = 0; o < OPERANDS; o++) operand[o] = own + o * j->chunk * j->width;
  ck_rows part = *c;
  part.rows = rows;
  if (c->diagonal != CK_NO_DIAGONAL) part.diagonal += (ptrdiff_t)i;
  if (c->index) {
    part.index += i;
  } else {
    staging_in(table, c->x_type, c->x, c->x_rs, i, 0, rows, c->x_n, operand[0], c->x_n);
    part.x = operand[0], part.x_rs = c->x_n, part.x_type = CK_F32;
  }
  if (c->other) {
    const int one = c->other_rs == 0;
    staging_in(table, c->other_type, c->other, c->other_rs, one ? 0 : i, 0, one ? 1 : rows, n, operand[1], n);
    part.other = operand[1], part.other_rs = one ? 0 : n, part.other_type = CK_F32;
  }
  part.y = operand[2], part.y_rs = n, part.y_type = CK_F32;
  if (c->accumulate) staging_in(table, c->y_type, c->y, c->y_rs, i, 0, rows, n, part.y, n);
  if (c->z) part.z = operand[3], part.z_rs = n, part.z_type = CK_F32;
  j->kernel(&part, 0, rows);
  staging_out(table, c->y_type, part.y, n, rows, n, c->y, c->y_rs, i, 0);
  if (c->z) staging_out(table, c->z_type, part.z, n, rows, n, c->z, c->z_rs, i, 0);
}

static void run_rows(const void *context, size_t first, size_t last) {
  const job *j = context;
  if (!j->chunk) {
    j->kernel(j->call, first, last);
    return;
  }
  for (size_t i = first; i < last; i += j->chunk) run_chunk(j, i, MIN(last - i, j->chunk));
}

static int all_f32(const ck_rows *c) {
  return (c->x_type == CK_F32 || c->index) && c->other_type == CK_F32 && c->y_type == CK_F32 && c->z_type == CK_F32;
}

int32_t ck_rows_run(const ck_kernels *table, ck_rows_kernel kernel, const ck_rows *call, size_t threads) {
  const size_t width = MAX(MAX(call->n, call->x_n), 1);
  const int alone = threads <= 1 || call->rows <= 1 || call->rows <= CALLER_ELEMENTS / width;
  if (!call->rows) return 0;
  job j = {.table = table, .kernel = kernel, .call = call};
  if (!all_f32(call)) {
    j.chunk = CHUNK_ELEMENTS / width + 1, j.width = round_up(width, 16);
    j.scratch = ck_scratch(CK_SCRATCH_ROWS, (alone ? 1 : threads) * OPERANDS * j.chunk * j.width);
    if (!j.scratch) return -1;
  }
  const size_t even = call->rows / (threads * PIECES_A_THREAD) + 1, least = PIECE_ELEMENTS / width + 1;
  if (alone)
    run_rows(&j, 0, call->rows);
  else
    ck_parallel(call->rows, MAX(even, least), threads, run_rows, &j);
  return 0;
}

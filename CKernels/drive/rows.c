// Row kernels on many threads: rows in pieces, small work on the caller. Operands that are not f32 are widened into scratch, a
// few rows at a time so that they stay in L1, and results narrowed from there: kernels see floats alone.
#include "../include/ck_drive.h"
#include "../include/ck_parallel.h"

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

// Rows [i, i + rows) of an operand in scratch, as floats.
static const float *widened(const job *j, ck_dtype type, const void *x, size_t x_rs, size_t n, size_t i, size_t rows, float *to) {
  for (size_t r = 0; r < rows; r++)
    j->table->f32_widen(type, n, (const char *)x + (i + r) * x_rs * ck_dtype_size(type), to + r * n);
  return to;
}

static void narrow_rows(const job *j, ck_dtype type, const float *from, void *y, size_t y_rs, size_t n, size_t i, size_t rows) {
  for (size_t r = 0; r < rows; r++) j->table->f32_narrow(type, n, from + r * n, (char *)y + (i + r) * y_rs * ck_dtype_size(type));
}

// Rows [i, i + rows) through scratch, as a call of their own.
static void run_chunk(const job *j, size_t i, size_t rows) {
  const ck_rows *c = j->call;
  const size_t n = c->n, x_n = c->x_n || j->kernel == j->table->f32_reduce ? c->x_n : n;
  float *own = j->scratch + ck_participant() * OPERANDS * j->chunk * j->width;
  float *operand[OPERANDS];
  for (size_t o = 0; o < OPERANDS; o++) operand[o] = own + o * j->chunk * j->width;
  ck_rows part = *c;
  part.rows = rows;
  if (c->diagonal != CK_NO_DIAGONAL) part.diagonal += (ptrdiff_t)i;
  if (c->index) {
    part.index += i;
  } else {
    part.x = widened(j, c->x_type, c->x, c->x_rs, x_n, i, rows, operand[0]);
    part.x_rs = x_n, part.x_type = CK_F32;
  }
  if (c->other) {
    const int one = c->other_rs == 0;
    part.other = widened(j, c->other_type, c->other, c->other_rs, n, one ? 0 : i, one ? 1 : rows, operand[1]);
    part.other_rs = one ? 0 : n, part.other_type = CK_F32;
  }
  part.y = operand[2], part.y_rs = n, part.y_type = CK_F32;
  if (c->accumulate) widened(j, c->y_type, c->y, c->y_rs, n, i, rows, part.y);
  if (c->z) part.z = operand[3], part.z_rs = n, part.z_type = CK_F32;
  j->kernel(&part, 0, rows);
  narrow_rows(j, c->y_type, part.y, c->y, c->y_rs, n, i, rows);
  if (c->z) narrow_rows(j, c->z_type, part.z, c->z, c->z_rs, n, i, rows);
}

static void run_rows(const void *context, size_t first, size_t last) {
  const job *j = context;
  if (!j->chunk) {
    j->kernel(j->call, first, last);
    return;
  }
  for (size_t i = first; i < last; i += j->chunk) run_chunk(j, i, last - i < j->chunk ? last - i : j->chunk);
}

static int all_f32(const ck_rows *c) {
  return (c->x_type == CK_F32 || c->index) && c->other_type == CK_F32 && c->y_type == CK_F32 && c->z_type == CK_F32;
}

int32_t ck_rows_run(const ck_kernels *table, ck_rows_kernel kernel, const ck_rows *call, size_t threads) {
  const size_t n = call->n ? call->n : 1, width = call->x_n > n ? call->x_n : n;
  const int alone = threads <= 1 || call->rows <= 1 || call->rows <= CALLER_ELEMENTS / width;
  if (!call->rows) return 0;
  job j = {.table = table, .kernel = kernel, .call = call};
  if (!all_f32(call)) {
    j.chunk = CHUNK_ELEMENTS / width + 1, j.width = (width + 15) / 16 * 16;
    j.scratch = ck_scratch(CK_SCRATCH_ROWS, (alone ? 1 : threads) * OPERANDS * j.chunk * j.width);
    if (!j.scratch) return -1;
  }
  const size_t even = call->rows / (threads * PIECES_A_THREAD) + 1, least = PIECE_ELEMENTS / width + 1;
  if (alone)
    run_rows(&j, 0, call->rows);
  else
    ck_parallel(call->rows, even > least ? even : least, threads, run_rows, &j);
  return 0;
}

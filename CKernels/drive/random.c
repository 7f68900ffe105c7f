// Random numbers: elements in pieces for the threads, whole Philox blocks for the kernel, chunks of a row narrowed where asked.
#include <string.h>

#include "../include/ck_kernels.h"
#include "../include/ck_parallel.h"

enum {
  CHUNK = 1 << 10,  // elements made at a time
  PIECE_CHUNKS = 8,
};

typedef struct random_job {
  const ck_kernels *table;
  const ck_random *call;
  size_t chunks;  // of a row
} random_job;

// Elements [number, number + n), any of which may lie within a block.
static void elements(const random_job *job, uint64_t number, size_t n, float *y) {
  const size_t skip = (size_t)(number % 4), head = skip ? (n < 4 - skip ? n : 4 - skip) : 0;
  float block[4];
  if (head) {
    job->table->f32_random(job->call, number / 4, 1, block);
    memcpy(y, block + skip, head * sizeof *y);
    number += head, n -= head, y += head;
  }
  job->table->f32_random(job->call, number / 4, n / 4, y);
  if (n % 4) {
    job->table->f32_random(job->call, (number + n) / 4, 1, block);
    memcpy(y + n / 4 * 4, block, n % 4 * sizeof *y);
  }
}

static void fill(const void *context, size_t first, size_t last) {
  const random_job *job = context;
  const ck_random *c = job->call;
  float wide[CHUNK];
  for (size_t item = first; item < last; item++) {
    const size_t row = item / job->chunks, j = item % job->chunks * CHUNK, n = c->n - j < CHUNK ? c->n - j : CHUNK;
    char *y = (char *)c->y + (row * c->y_rs + j) * ck_dtype_size(c->y_type);
    float *to = c->y_type == CK_F32 ? (float *)(void *)y : wide;
    const uint64_t number = c->offset + row * c->n + j, left = 0 - number;  // left until numbers start again; 0 is 2^64
    const size_t before = left && left < n ? (size_t)left : n;
    elements(job, number, before, to);
    elements(job, 0, n - before, to + before);
    if (to == wide) job->table->f32_narrow(c->y_type, n, wide, y);
  }
}

void ck_random_fill(const ck_kernels *table, const ck_random *call, size_t threads) {
  if (!call->rows || !call->n) return;
  ck_random whole = *call;
  if (call->y_rs == call->n) whole.rows = 1, whole.n = call->rows * call->n;  // short rows would waste most of their groups
  const random_job job = {table, &whole, (whole.n + CHUNK - 1) / CHUNK};
  const size_t width = whole.n < CHUNK ? whole.n : CHUNK;
  ck_parallel(whole.rows * job.chunks, PIECE_CHUNKS * CHUNK / width, threads, fill, &job);
}

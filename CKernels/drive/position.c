// Rotary embedding and the cache of keys and values, on many threads: tokens in pieces, small work on the caller.
#include <string.h>

#include "../include/ck_kernels.h"
#include "../include/ck_parallel.h"

enum {
  PIECE_ELEMENTS = 1 << 13,  // worth handing to another thread
  PIECES_A_THREAD = 4,
  CHUNK_ELEMENTS = 256,  // on their way from one 16-bit type to the other
};

static size_t grain_of(size_t tokens, size_t elements, size_t threads) {
  const size_t even = tokens / ((threads ? threads : 1) * PIECES_A_THREAD) + 1, least = PIECE_ELEMENTS / (elements + 1) + 1;
  return even > least ? even : least;
}

typedef struct rope_job {
  const ck_kernels *table;
  const ck_rope *call;
} rope_job;

static void rope_task(const void *context, size_t first, size_t last) {
  const rope_job *job = context;
  job->table->f32_rope(job->call, first, last);
}

void ck_f32_rope(const ck_kernels *table, const ck_rope *call, size_t threads) {
  const rope_job job = {table, call};
  ck_parallel(call->tokens, grain_of(call->tokens, call->heads * call->size, threads), threads, rope_task, &job);
}

typedef struct append_job {
  const ck_kernels *table;
  const ck_append *call;
} append_job;

static void convert(const ck_kernels *table, ck_dtype from, const char *x, ck_dtype to, char *y, size_t n) {
  float wide[CHUNK_ELEMENTS];
  if (from == to)
    memcpy(y, x, n * ck_dtype_size(to));
  else if (from == CK_F32)
    table->f32_narrow(to, n, (const float *)(const void *)x, y);
  else if (to == CK_F32)
    table->f32_widen(from, n, x, (float *)(void *)y);
  else
    for (size_t j = 0; j < n; j += CHUNK_ELEMENTS) {
      const size_t lanes = n - j < CHUNK_ELEMENTS ? n - j : CHUNK_ELEMENTS;
      table->f32_widen(from, lanes, x + j * ck_dtype_size(from), wide);
      table->f32_narrow(to, lanes, wide, y + j * ck_dtype_size(to));
    }
}

static void append_task(const void *context, size_t first, size_t last) {
  const append_job *job = context;
  const ck_append *a = job->call;
  // Heads without gaps on both sides are one row, unless each has a scale of its own.
  const int whole = a->x_hs == a->size && a->cache_hs == a->size && a->cache_type != CK_I8;
  const size_t heads = whole ? 1 : a->heads, n = whole ? a->heads * a->size : a->size;
  size_t s = 0;
  for (size_t t = first; t < last; t++) {
    while (t >= (size_t)a->offsets[s + 1]) s++;
    const size_t row = (size_t)a->lengths[s] + t - (size_t)a->offsets[s];
    for (size_t h = 0; h < heads; h++) {
      const char *x = (const char *)a->x + (t * a->x_rs + h * a->x_hs) * ck_dtype_size(a->x_type);
      char *to = (char *)a->cache + (s * a->cache_ss + row * a->cache_rs + h * a->cache_hs) * ck_dtype_size(a->cache_type);
      if (a->cache_type == CK_I8)
        job->table->i8_quantize_vector(a->x_type, n, x, (int8_t *)to,
                                       a->scales + s * a->scale_ss + row * a->scale_rs + h * a->scale_hs);
      else
        convert(job->table, a->x_type, x, a->cache_type, to, n);
    }
  }
}

void ck_cache_append(const ck_kernels *table, const ck_append *call, size_t threads) {
  if (!call->sequences) return;
  const append_job job = {table, call};
  const size_t tokens = (size_t)call->offsets[call->sequences];
  ck_parallel(tokens, grain_of(tokens, call->heads * call->size, threads), threads, append_task, &job);
}

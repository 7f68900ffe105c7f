// Every f32 input of the elementary functions, on every instruction set this machine runs, within the bounds that the head of
// CKernels/body/math.h states. The exact value is the C library's in double.
//   exhaustive [--every N] [NAME...]
// --every N takes every Nth bit pattern. Exits with 1 where a bound does not hold. Progress is on standard error, for a terminal.
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../activations.h"

enum { CHUNK = 1 << 14, MOST_THREADS = 256 };

// Distance of neighbouring floats at y.
static inline double ulp_of(double y) {
  uint64_t bits;
  memcpy(&bits, &y, sizeof bits);
  const int64_t exponent = MAX((int64_t)(bits >> 52 & 2047) - 1023, -126);
  bits = (uint64_t)(exponent - 23 + 1023) << 52;
  memcpy(&y, &bits, sizeof y);
  return y;
}

// Results below the normal range have this much more.
static inline double below_normal(double y) { return fabs(y) < 0x1p-126 ? 0x1p-149 : 0; }

// So many ulp, and so many u |y|, whichever is less.
static inline double within(double ulps, double units, double y) {
  return MIN(ulps * ulp_of(y), units * U * fabs(y)) + below_normal(y);
}

static inline double within_gelu_tanh(double x, double y) {
  const double w = gelu_tanh_argument(x), always = 3 * U * fabs(x) + below_normal(y);
  if (x >= 0) return always;
  return w > -87 ? MIN(always, (4 + 5 * fabs(w)) * U * fabs(y) + below_normal(y)) : 0x1p-122;
}

// The largest errors so far: in ulp, in u |y| where y is normal, and as a share of the bound, with the input of the last.
typedef struct worst {
  double ulps, units, share;
  uint32_t at;
  float value;
} worst;

static inline double error_of(float got, double y) {
  if (isnan(y)) return isnan(got) ? 0 : INFINITY;
  if (fabs(y) >= 0x1p128 && isinf(got) && signbit(got) == signbit(y)) return 0;
  return isinf(y) || isnan(got) ? INFINITY : fabs((isinf(got) ? copysign(0x1p128, got) : got) - y);
}

static inline void note(worst *w, uint32_t bits, float got, double y, double allowed) {
  const double error = error_of(got, y);
  if (error == 0) return;
  w->ulps = MAX(w->ulps, error / ulp_of(y));
  if (fabs(y) >= 0x1p-126) w->units = MAX(w->units, error / (U * fabs(y)));
  const double share = allowed > 0 ? error / allowed : INFINITY;
  if (share > w->share) w->share = share, w->at = bits, w->value = got;
}

typedef struct function {
  const char *name;
  void (*on[CK_ISA_COUNT])(size_t n, const float *x, float *y);
  void (*exact)(const float *x, double *y);
  void (*judge)(uint32_t bits, uint32_t step, const float *x, const double *y, const float *got, worst *w);
} function;

#if defined(__x86_64__)
#define EACH_ISA(f, name) f(name, scalar, CK_ISA_SCALAR) f(name, avx2, CK_ISA_AVX2) f(name, avx512, CK_ISA_AVX512)
#else
#define EACH_ISA(f, name) f(name, scalar, CK_ISA_SCALAR) f(name, neon, CK_ISA_NEON)
#endif
#define DECLARED(name, isa, code) void name##_##isa(size_t n, const float *x, float *y);
#define ENTRY(name, isa, code) [code] = name##_##isa,

#define FUNCTION(name, f, inputs, exact_value, allowed)                                                                          \
  EACH_ISA(DECLARED, name)                                                                                                       \
  static void exact_##name(const float *array, double *y) {                                                                      \
    for (size_t j = 0; j < CHUNK; j++) {                                                                                         \
      const double x = array[j];                                                                                                 \
      if (inputs) y[j] = exact_value;                                                                                            \
    }                                                                                                                            \
  }                                                                                                                              \
  static void judge_##name(uint32_t bits, uint32_t step, const float *array, const double *values, const float *got, worst *w) { \
    for (size_t j = 0; j < CHUNK; j++) {                                                                                         \
      const double x = array[j], y = values[j];                                                                                  \
      (void)x, (void)y;                                                                                                          \
      if (inputs) note(w, bits + (uint32_t)j * step, got[j], y, allowed);                                                        \
    }                                                                                                                            \
  }
#include "functions.inc"
#undef FUNCTION

static const function functions[] = {
#define FUNCTION(name, f, inputs, exact_value, allowed) {#name, {EACH_ISA(ENTRY, name)}, exact_##name, judge_##name},
#include "functions.inc"
#undef FUNCTION
};

// One function over all chunks: threads take the next one until none is left.
static const function *current;
static uint32_t every = 1;
static uint64_t chunks;
static _Atomic uint64_t next;
static worst totals[CK_ISA_COUNT];
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

static void show(uint64_t chunk) {
  static const uint64_t steps = 200;
  if (isatty(STDERR_FILENO) && chunk % (chunks / steps + 1) == 0)
    fprintf(stderr, "\r%-16s %3d%%", current->name, (int)(100 * chunk / chunks));
}

static void *measure(void *unused) {
  static _Thread_local float x[CHUNK], got[CHUNK];
  static _Thread_local double y[CHUNK];
  worst own[CK_ISA_COUNT] = {0};
  for (uint64_t chunk; (chunk = atomic_fetch_add(&next, 1)) < chunks;) {
    const uint32_t first = (uint32_t)(chunk * CHUNK * every);
    for (uint32_t j = 0; j < CHUNK; j++) {
      const uint32_t bits = first + j * every;
      memcpy(&x[j], &bits, sizeof bits);
    }
    current->exact(x, y);
    for (int isa = 0; isa < CK_ISA_COUNT; isa++) {
      if (!current->on[isa] || !ck_kernels_for((ck_isa)isa)) continue;
      current->on[isa](CHUNK, x, got);
      current->judge(first, every, x, y, got, &own[isa]);
    }
    show(chunk);
  }
  pthread_mutex_lock(&mutex);
  for (int isa = 0; isa < CK_ISA_COUNT; isa++) {
    worst *total = &totals[isa];
    total->ulps = MAX(total->ulps, own[isa].ulps), total->units = MAX(total->units, own[isa].units);
    if (own[isa].share > total->share) total->share = own[isa].share, total->at = own[isa].at, total->value = own[isa].value;
  }
  pthread_mutex_unlock(&mutex);
  return unused;
}

static int report(void) {
  int failed = 0;
  if (isatty(STDERR_FILENO)) fprintf(stderr, "\r%40s\r", "");
  for (int isa = 0; isa < CK_ISA_COUNT; isa++) {
    if (!current->on[isa] || !ck_kernels_for((ck_isa)isa)) continue;
    const worst *w = &totals[isa];
    float x;
    memcpy(&x, &w->at, sizeof x);
    printf("%-16s %-7s %#9.4g ulp %#9.4g u|y|  %.3f of the bound at x = %a (%08x), which gives %a%s\n", current->name,
           ck_isa_name((ck_isa)isa), w->ulps, w->units, w->share, x, w->at, w->value, w->share > 1 ? "  FAILED" : "");
    failed += w->share > 1;
  }
  fflush(stdout);
  return failed;
}

static int run(const function *f) {
  pthread_t threads[MOST_THREADS];
  const size_t count = MIN(ck_allowed_threads(), (size_t)MOST_THREADS);
  size_t started = 0;
  current = f;
  atomic_store(&next, 0);
  memset(totals, 0, sizeof totals);
  while (started + 1 < count && !pthread_create(&threads[started], 0, measure, 0)) started++;
  measure(0);
  while (started > 0) pthread_join(threads[--started], 0);
  return report();
}

int main(int count, char **arguments) {
  count--, arguments++;
  if (count >= 2 && !strcmp(*arguments, "--every")) {
    every = (uint32_t)strtoul(arguments[1], 0, 10);
    count -= 2, arguments += 2;
  }
  if (!every) {
    fprintf(stderr, "exhaustive: --every takes a number from 1\n");
    return 2;
  }
  chunks = ((UINT64_C(1) << 32) / every + CHUNK - 1) / CHUNK;
  int failures = 0;
  for (size_t f = 0; f < COUNT(functions); f++) {
    int chosen = count == 0;
    for (int k = 0; k < count; k++) chosen |= !strcmp(arguments[k], functions[f].name);
    if (chosen) failures += run(&functions[f]);
  }
  return failures != 0;
}

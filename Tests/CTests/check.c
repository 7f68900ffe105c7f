#define _GNU_SOURCE
#include "check.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { MOST_OPERANDS = 24, ARENA_BYTES = 12 << 20, MARGIN = 256, CANARY = 0xFF, MOST_MESSAGES = 4 };

// One arena an operand of a case, between two pages that nobody may touch.
static unsigned char *arenas[MOST_OPERANDS];
static operand operands[MOST_OPERANDS];
static const test *current;
static size_t from_guards;

void keep_from_guards(void) { from_guards = 64; }

static unsigned char *arena(size_t index) {
  if (index >= MOST_OPERANDS) {
    fprintf(stderr, "a case of more than %d operands: raise MOST_OPERANDS\n", MOST_OPERANDS);
    exit(2);
  }
  if (arenas[index]) return arenas[index];
  const size_t page = (size_t)sysconf(_SC_PAGESIZE);
  unsigned char *base = mmap(0, ARENA_BYTES + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (base == MAP_FAILED || mprotect(base + page, ARENA_BYTES, PROT_READ | PROT_WRITE)) {
    perror("mapping an arena");
    exit(2);
  }
  return arenas[index] = base + page;
}

void situation(test *t, int place, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(t->situation, sizeof t->situation, format, arguments);
  va_end(arguments);
  for (size_t o = 0; o < t->operands; o++) free(operands[o].snapshot), operands[o].snapshot = 0;
  t->place = place, t->operands = 0;
  current = t;
}

// The process ends here: stdio in a handler does no more harm.
static void report_fault(int signal) {
  const char *kind = signal == SIGILL ? "an instruction that this processor lacks" : "memory outside an operand was touched";
  if (current) printf("%s %s: %s: %s\n", ck_isa_name(current->table->isa), current->name, current->situation, kind);
  fflush(stdout);
  _exit(1);
}

void report_faults(void) { signal(SIGSEGV, report_fault), signal(SIGBUS, report_fault), signal(SIGILL, report_fault); }

void fail(test *t, const char *format, ...) {
  if (t->failures++ >= MOST_MESSAGES) return;
  char message[240];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(message, sizeof message, format, arguments);
  va_end(arguments);
  printf("%s %s: %s: %s\n", ck_isa_name(t->table->isa), t->name, t->situation, message);
}

uint64_t random_bits(test *t) {  // splitmix64
  uint64_t z = t->random += 0x9E3779B97F4A7C15;
  z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9;
  z = (z ^ z >> 27) * 0x94D049BB133111EB;
  return z ^ z >> 31;
}

size_t random_below(test *t, size_t count) { return (size_t)(random_bits(t) % count); }

double random_in(test *t, double low, double high) { return low + (high - low) * (double)(random_bits(t) >> 11) * 0x1p-53; }

static operand *place(test *t, ck_dtype type, size_t rows, size_t n, size_t rs) {
  const size_t size = ck_dtype_size(type), count = rows ? (rows - 1) * rs + n : 0, bytes = count * size;
  unsigned char *low = arena(t->operands), *high = low + ARENA_BYTES, *end = high - from_guards;
  operand *o = &operands[t->operands++];
  if (bytes + from_guards + (PLACES - 1) * size > ARENA_BYTES) {
    fprintf(stderr, "%s: %s: an operand of %zu bytes: raise ARENA_BYTES\n", t->name, t->situation, bytes);
    exit(2);
  }
  unsigned char *at = t->place == AT_END ? end - bytes : low + (size_t)t->place * size;
  *o = (operand){.type = type, .rows = rows, .n = n, .rs = rs, .at = at};
  end = high - at - (ptrdiff_t)bytes > MARGIN ? at + bytes + MARGIN : high;
  o->window = at - low > MARGIN ? at - MARGIN : low;
  o->window_bytes = (size_t)(end - o->window);
  memset(o->window, CANARY, o->window_bytes);  // NaN in every type
  return o;
}

operand *matrix(test *t, ck_dtype type, size_t rows, size_t n, size_t rs, double size) {
  operand *o = place(t, type, rows, n, rs);
  for (size_t i = 0; i < rows; i++)
    for (size_t j = 0; j < n; j++) set_element(o, i, j, random_in(t, -size, size));
  return o;
}

operand *integers(test *t, ck_dtype type, size_t rows, size_t n, size_t rs) {
  operand *o = place(t, type, rows, n, rs);
  for (size_t i = 0; i < rows; i++)
    for (size_t j = 0; j < n; j++) set_element(o, i, j, (double)random_below(t, 9) - 4);
  return o;
}

operand *vector(test *t, size_t n, double size) { return matrix(t, CK_F32, 1, n, n, size); }

int32_t *indices(test *t, size_t count) {
  operand *o = place(t, CK_F32, 1, count, count);
  return memset(o->at, 0, count * sizeof(int32_t));
}

size_t stride_for(test *t, size_t n) { return n + (random_bits(t) & 1 ? 1 + random_below(t, 7) : 0); }

double decoded(ck_dtype type, uint32_t bits) {
  if (type != CK_F16) {
    float x;
    bits <<= type == CK_BF16 ? 16 : 0;
    memcpy(&x, &bits, sizeof x);
    return x;
  }
  const int exponent = bits >> 10 & 31, mantissa = bits & 1023;
  const double size = exponent == 31 ? (mantissa ? NAN : INFINITY)
                      : exponent     ? ldexp(1024 + mantissa, exponent - 25)
                                     : ldexp(mantissa, -24);
  return bits >> 15 ? -size : size;
}

// Half the distance of neighbours at `value`: precision p, smallest normal exponent e.
double storage_error(ck_dtype type, double value) {
  const int precision = type == CK_F32 ? 24 : type == CK_BF16 ? 8 : 11, least = type == CK_F16 ? -14 : -126;
  int exponent;
  frexp(value, &exponent);
  if (value == 0 || exponent - 1 < least) exponent = least + 1;
  return ldexp(0.5, exponent - precision);
}

double rounded(ck_dtype type, double value) {
  if (!isfinite(value) || value == 0) return value;
  const double unit = 2 * storage_error(type, value), near = nearbyint(value / unit) * unit;
  const double largest = type == CK_F32 ? 0x1.fffffep127 : type == CK_BF16 ? 0x1.fep127 : 65504;
  return fabs(near) > largest ? copysign(INFINITY, near) : copysign(near, value);
}

double element(const operand *o, size_t i, size_t j) {
  if (o->type == CK_I8) return ((const int8_t *)o->at)[i * o->rs + j];
  if (o->type == CK_F32) return ((const float *)o->at)[i * o->rs + j];
  return decoded(o->type, ((const uint16_t *)o->at)[i * o->rs + j]);
}

void set_element(const operand *o, size_t i, size_t j, double value) {
  if (o->type == CK_I8) {
    ((int8_t *)o->at)[i * o->rs + j] = (int8_t)nearbyint(value);
    return;
  }
  value = rounded(o->type, value);
  if (o->type != CK_F16) {
    const float x = (float)value;
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    if (o->type == CK_F32)
      ((float *)o->at)[i * o->rs + j] = x;
    else
      ((uint16_t *)o->at)[i * o->rs + j] = (uint16_t)(bits >> 16);
    return;
  }
  const double size = fabs(value);
  uint32_t bits;
  if (!isfinite(value)) {
    bits = isnan(value) ? 0x7E00 : 0x7C00;
  } else if (size < 0x1p-14) {
    bits = (uint32_t)(size * 0x1p24);  // denormal
  } else {
    int exponent;
    const double mantissa = frexp(size, &exponent);
    bits = (uint32_t)(exponent + 14) << 10 | ((uint32_t)(mantissa * 2048) - 1024);
  }
  ((uint16_t *)o->at)[i * o->rs + j] = (uint16_t)(bits | (signbit(value) ? 0x8000 : 0));
}

void seal(test *t) {
  for (size_t k = 0; k < t->operands; k++) {
    operand *o = &operands[k];
    if (!o->snapshot) o->snapshot = malloc(o->window_bytes + 1);
    memcpy(o->snapshot, o->window, o->window_bytes);
  }
}

void check_untouched(test *t) {
  for (size_t k = 0; k < t->operands; k++) {
    const operand *o = &operands[k];
    const size_t size = ck_dtype_size(o->type), start = (size_t)((unsigned char *)o->at - o->window);
    for (size_t row = 0; o->written && row < o->rows; row++)  // elements may have changed
      memcpy(o->snapshot + start + row * o->rs * size, o->window + start + row * o->rs * size, o->n * size);
    for (size_t b = 0; b < o->window_bytes; b++)
      if (o->snapshot[b] != o->window[b]) {
        fail(t, "operand %zu: byte %td from its start was changed", k, (ptrdiff_t)b - (ptrdiff_t)start);
        break;
      }
  }
}

void check_element(test *t, const operand *o, size_t i, size_t j, double expected, double bound) {
  const double got = element(o, i, j);
  if (isnan(got) && isnan(expected)) return;
  if (isinf(expected) || isinf(got) ? got == rounded(o->type, expected)
                                    : fabs(got - expected) <= bound + storage_error(o->type, fabs(expected) + bound))
    return;
  fail(t, "[%zu, %zu] is %.9g, not %.9g within %.3g", i, j, got, expected, bound);
}

double *values_of(const operand *o) {
  if (!o) return 0;
  double *values = malloc((o->rows * o->n + 1) * sizeof *values);
  for (size_t i = 0; i < o->rows; i++)
    for (size_t j = 0; j < o->n; j++) values[i * o->n + j] = element(o, i, j);
  return values;
}

// A copy of an operand's elements, packed row by row. The caller frees it.
static void *bits_of(const operand *o) {
  const size_t bytes = o->n * ck_dtype_size(o->type);
  unsigned char *copy = malloc(o->rows * bytes + 1);
  for (size_t i = 0; i < o->rows; i++) memcpy(copy + i * bytes, (const char *)o->at + i * o->rs * ck_dtype_size(o->type), bytes);
  return copy;
}

void check_bits(test *t, const operand *o, const void *bits, const char *what) {
  const size_t bytes = o->n * ck_dtype_size(o->type);
  for (size_t i = 0; i < o->rows; i++)
    if (memcmp((const char *)bits + i * bytes, (const char *)o->at + i * o->rs * ck_dtype_size(o->type), bytes)) {
      fail(t, "%s: row %zu has other bits", what, i);
      return;
    }
}

void check_threads(test *t, threaded_case run, const void *shape) {
  const size_t thread_counts[] = {1, 3};
  void *alone[MOST_OPERANDS] = {0};
  const uint64_t seed = random_bits(t);
  for (size_t k = 0; k < COUNT(thread_counts); k++) {
    t->random = seed;
    run(t, shape, thread_counts[k]);
    for (size_t o = 0; o < t->operands; o++) {
      if (!operands[o].written) continue;
      if (k)
        check_bits(t, &operands[o], alone[o], "more threads");
      else
        alone[o] = bits_of(&operands[o]);
    }
  }
  for (size_t o = 0; o < MOST_OPERANDS; o++) free(alone[o]);
}

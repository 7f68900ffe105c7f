// The harness of the C checks: operands against guard pages, values in double, bounds. A check calls `fail` for what is wrong.
#ifndef CHECK_H
#define CHECK_H

#include <CKernels.h>
#include <math.h>
#include <stdint.h>

#define U 0x1p-24  // the unit roundoff of f32
#define MAX(a, b) ((a) > (b) ? (a) : (b))
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define COUNT(array) (sizeof(array) / sizeof *(array))

// Where operands lie: the last byte before a guard page, or this many elements after one.
enum { AT_END = -1, PLACES = 17 };  // places are AT_END and 0 ..< PLACES - 1

// One kernel or driver under check on one instruction set.
typedef struct test {
  const ck_kernels *table;
  const char *name;    // the registry's or the driver's
  char situation[160];  // the case at hand, for messages
  uint64_t random;
  int place;
  size_t operands, failures;
} test;

// A matrix in the storage of `type`, row i at i * rs elements. What lies between rows is not to be touched.
typedef struct operand {
  ck_dtype type;
  size_t rows, n, rs;
  void *at;
  int written;  // whether the call may change its elements
  unsigned char *window, *snapshot;
  size_t window_bytes;
} operand;

// Names the case and forgets its predecessor's operands; seeds are the same in every run.
__attribute__((format(printf, 3, 4))) void situation(test *t, int place, const char *format, ...);
__attribute__((format(printf, 2, 3))) void fail(test *t, const char *format, ...);
// Names the case at hand when a guard page is touched.
void report_faults(void);
// From here on operands lie a vector before the guard page, where canaries still show what is written.
void keep_from_guards(void);

uint64_t random_bits(test *t);
size_t random_below(test *t, size_t count);
double random_in(test *t, double low, double high);

// New operands of this case. `matrix` holds random values within `size` of 0; `integers` small whole ones, so that sums are
// exact.
operand *matrix(test *t, ck_dtype type, size_t rows, size_t n, size_t rs, double size);
operand *integers(test *t, ck_dtype type, size_t rows, size_t n, size_t rs);
operand *vector(test *t, size_t n, double size);
int32_t *indices(test *t, size_t count);  // zeros for the check to fill
static inline ck_dtype any_type(test *t) { return (ck_dtype)random_below(t, CK_DTYPE_COUNT); }
// A row stride for n columns: n, or more in every second case.
size_t stride_for(test *t, size_t n);
static inline int one_in(test *t, size_t count) { return random_below(t, count) == 0; }
static inline int any_place(test *t) { return one_in(t, 2) ? AT_END : (int)random_below(t, PLACES - 1); }
static inline float *floats(const operand *o) { return o ? o->at : 0; }

double element(const operand *o, size_t i, size_t j);
void set_element(const operand *o, size_t i, size_t j, double value);  // rounds to the type
double rounded(ck_dtype type, double value);
double decoded(ck_dtype type, uint32_t bits);
// Half a unit in the last place of `value` in this type.
double storage_error(ck_dtype type, double value);

// Runs before the call, and after it: fails where anything but the elements of written operands has changed.
void seal(test *t);
void check_untouched(test *t);
// Fails unless element (i, j) of o is within `bound`, and its own storage's rounding, of `expected`.
void check_element(test *t, const operand *o, size_t i, size_t j, double expected, double bound);
// Whether an operand holds these bits, rows one after the other.
void check_bits(test *t, const operand *o, const void *bits, const char *what);
// The elements of an operand in double, or NULL without one. The caller frees them.
double *values_of(const operand *o);

static inline double gamma_of(double n) { return n * U / (1 - n * U); }  // n roundings, Higham, chapter 3

// Runs a case alone and as a team, with the same operands: what it writes must be the same bits.
typedef void (*threaded_case)(test *t, const void *shape, size_t threads);
void check_threads(test *t, threaded_case run, const void *shape);

#endif

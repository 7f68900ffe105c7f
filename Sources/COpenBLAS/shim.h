#include <cblas.h>

// LAPACKE's own complex types need C's _Complex, which Swift cannot import; plain structures have the same layout.
#define LAPACK_COMPLEX_CUSTOM
typedef struct {
  float real, imag;
} lapack_complex_float;
typedef struct {
  double real, imag;
} lapack_complex_double;
#include <lapacke.h>

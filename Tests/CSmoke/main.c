// CKernels from plain C: multiplies two matrices and normalises a row on every instruction set of this machine.
#include <CKernels.h>
#include <math.h>
#include <stdio.h>

enum { M = 7, N = 19, K = 33 };

static int multiply(const ck_kernels *table) {
  static float a[M * K], b[K * N], c[M * N];  // [M, K], [K, N], [M, N]
  for (int i = 0; i < M * K; i++) a[i] = (float)(i % 7 - 3);
  for (int i = 0; i < K * N; i++) b[i] = (float)(i % 5 - 2);
  ck_gemm call = {.batch = 1,
                  .m = M,
                  .n = N,
                  .k = K,
                  .a = a,
                  .a_rs = K,
                  .a_cs = 1,
                  .b = b,
                  .b_rs = N,
                  .b_cs = 1,
                  .c = c,
                  .c_rs = N,
                  .alpha = 1};
  if (ck_f32_gemm(table, &call, 2) != 0) return 1;
  for (int i = 0; i < M; i++) {
    for (int j = 0; j < N; j++) {
      float sum = 0;
      for (int p = 0; p < K; p++) sum += a[i * K + p] * b[p * N + j];
      if (sum != c[i * N + j]) return 1;
    }
  }
  return 0;
}

static int normalise(const ck_kernels *table) {
  float x[N], y[N], length = 0;  // [N]
  for (int i = 0; i < N; i++) x[i] = (float)(i - 4);
  ck_rows call = {.rows = 1, .n = N, .x_n = N, .x = x, .x_rs = N, .y = y, .y_rs = N, .epsilon = 1e-12f};
  if (ck_rows_run(table, table->f32_l2norm, &call, 1) != 0) return 1;
  for (int i = 0; i < N; i++) length += y[i] * y[i];
  return fabsf(length - 1) > 1e-5f;
}

int main(void) {
  int failures = 0;
  for (int isa = 0; isa < CK_ISA_COUNT; isa++) {
    const ck_kernels *table = ck_kernels_for((ck_isa)isa);
    if (!table) continue;
    int failed = multiply(table) + normalise(table);
    printf("%s %s\n", ck_isa_name((ck_isa)isa), failed ? "failed" : "ok");
    failures += failed;
  }
  return failures != 0;
}

// Types shared by every kernel. Sizes are element counts; strides ("_rs") are elements between rows.
#ifndef CK_TYPES_H
#define CK_TYPES_H

#include <stddef.h>
#include <stdint.h>

// Instruction sets, weakest first; QUERN_MAX_ISA lowers the choice and never raises it. A processor with a later one may lack an
// earlier one: AVX-VNNI came after AVX-512.
typedef enum ck_isa {
  CK_ISA_SCALAR = 0,
  CK_ISA_NEON = 1,
  CK_ISA_NEONDOT = 2,     // and the dot products of Armv8.2
  CK_ISA_AVX2 = 3,        // AVX2 + FMA + F16C
  CK_ISA_AVXVNNI = 4,     // and AVX-VNNI
  CK_ISA_AVX512 = 5,      // AVX2's and AVX-512 F, BW, DQ, VL
  CK_ISA_AVX512VNNI = 6,  // and AVX512-VNNI
  CK_ISA_AVX512BF16 = 7,  // and AVX512-BF16
  CK_ISA_AMX = 8,         // and AMX-TILE, AMX-BF16, AMX-INT8
  CK_ISA_COUNT = 9
} ck_isa;

// How elements are stored. Kernels compute in f32: drivers and typed loads widen on the way in and round once on the way out.
typedef enum ck_dtype {
  CK_F32 = 0,
  CK_BF16 = 1,
  CK_F16 = 2,
  CK_DTYPE_COUNT = 3,  // types of elements: the rest are of packed weights, and of a cache, alone
  CK_Q8_0 = 3,
  CK_Q4_0 = 4,
  CK_Q4_K = 5,
  CK_Q6_K = 6,
  CK_MXFP4 = 7,
  CK_Q5_1 = 8,
  CK_Q5_K = 9,
  CK_I8 = 10,  // codes of keys and values, with a scale for each vector: ck_attention.h, ck_position.h
} ck_dtype;
static inline size_t ck_dtype_size(ck_dtype type) { return type == CK_F32 ? 4 : type == CK_I8 ? 1 : 2; }

// Packed weights: panels [n/NR][k][NR] of f32 and f16. Of bf16 [n/NR][k/2][NR][2], rows in pairs as products of pairs take them,
// and the last of an odd number by itself, [NR]. Formats of ggml's values cut a panel into blocks of 32 rows, or super-blocks of
// 256. Codes lie in pairs of rows: element (p, j, i) of [32 / 2][NR][2] is row 2 p + i of column j.
//   Q8_0  scale f16 [NR], q int8 [16][NR][2]:  w = scale q
//   Q4_0  scale f16 [NR], four pairs a 16-bit word [4][NR][2], pair p at bits 4 (p % 4) of word p / 4:  w = scale (q - 8)
//   MXFP4 scale bf16 [NR], words as in Q4_0 of E2M1 codes e:  w = scale e(q), e(0..15) as CK_E2M1
//   Q5_1  d, m f16 [NR], words as in Q4_0 of the low 4 bits, and a word of the high bits [NR][2], pair p at bit ck_fifth(p):
//         w = d q + m
//   Q4_K  d, m f16 [NR]; 8 times s, l int8 [NR] and words as in Q4_0:  w = d s q - m l
//   Q5_K  the same with words as in Q5_1
//   Q6_K  d f16 [NR]; 8 times s int8 [2][NR] for 16 rows each, words of the low 4 bits as in Q4_0, and of the high 2 bits
//         [2][NR][2], pair p at bits 2 ck_crumb(p) of word p / 8:  w = d s (q - 32)
#define CK_QUANT_ROWS 32
#define CK_E2M1 0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12
#define CK_SUPER_ROWS 256
static inline size_t ck_packed_bytes(ck_dtype type, size_t elements) {
  switch (type) {
    case CK_Q8_0:
      return elements / CK_QUANT_ROWS * 34;
    case CK_Q4_0:
    case CK_MXFP4:
      return elements / CK_QUANT_ROWS * 18;
    case CK_Q5_1:
      return elements / CK_QUANT_ROWS * 24;
    case CK_Q4_K:
      return elements / CK_SUPER_ROWS * 148;
    case CK_Q5_K:
      return elements / CK_SUPER_ROWS * 180;
    case CK_Q6_K:
      return elements / CK_SUPER_ROWS * 210;
    default:
      return elements * ck_dtype_size(type);
  }
}
// Where the high bits of pair p lie, so that a byte of them has the same rows as one of the low bits.
static inline size_t ck_crumb(size_t p) { return (p & 1) | (p & 2) << 1 | (p & 4) >> 1; }
static inline size_t ck_fifth(size_t p) { return (p & 1) | (p & 2) << 2 | (p & 12) >> 1; }
// Rows of what a format cannot be cut in, scales of a block of 32 rows, whether a weight is the difference of two terms, and
// whether codes have fifth bits in a word of their own.
static inline size_t ck_quant_unit(ck_dtype type) {
  return type == CK_Q4_K || type == CK_Q5_K || type == CK_Q6_K ? CK_SUPER_ROWS : CK_QUANT_ROWS;
}
static inline size_t ck_quant_parts(ck_dtype type) { return type == CK_Q6_K ? 2 : 1; }
static inline int ck_quant_fifths(ck_dtype type) { return type == CK_Q5_1 || type == CK_Q5_K; }
static inline int ck_quant_lowered(ck_dtype type) { return type == CK_Q5_1 || type == CK_Q4_K || type == CK_Q5_K; }

// The table of one instruction set, in ck_kernels.h.
typedef struct ck_kernels ck_kernels;

// Element-wise functions, also the activation of an epilogue.
typedef enum ck_activation {
  CK_IDENTITY = 0,
  CK_RELU = 1,
  CK_GELU_ERF = 2,   // x/2 (1 + erf(x/sqrt 2))
  CK_GELU_TANH = 3,  // x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))
  CK_SILU = 4,       // x / (1 + exp(-x))
  CK_TANH = 5,
  CK_SIGMOID = 6,  // 1 / (1 + exp(-x))
  CK_QUICK_GELU = 7,  // x / (1 + exp(-1.702 x))
  CK_ACTIVATION_COUNT = 8
} ck_activation;

// A `diagonal` that masks nothing: row i sees columns j with j <= i + diagonal.
#define CK_NO_DIAGONAL PTRDIFF_MAX

// One call of a row kernel: every row kernel takes this struct and a row range, and uses the fields it names.
// Kernels read floats. Where a type is not CK_F32 its pointer is to elements of that type: ck_rows_run widens and narrows a
// few rows at a time. A kernel with an `index` reads x itself, by x_type.
typedef struct ck_rows {
  size_t rows, n;          // rows of n elements
  size_t x_n;              // elements of a row of x: n, but for reduce
  const float *x;          // [rows, n] input
  size_t x_rs;
  const float *other;      // [rows, n] second operand, residual or additive mask; NULL where optional
  size_t other_rs;         // 0 broadcasts one row
  const float *weight;     // [n] or NULL
  const float *bias;       // [n] or NULL
  const int32_t *index;    // [rows] table rows (gather) or [rows + 1] segment offsets (mean pool)
  float *y;                // [rows, n] output; may equal x exactly where the kernel says so
  size_t y_rs;
  float *z;                // [rows, n] second output, or NULL; may equal x or other exactly where the kernel says so
  size_t z_rs;
  float scale;             // multiplier; 1 leaves the value alone
  float epsilon;
  ptrdiff_t diagonal;      // softmax: row i of the call sees columns <= i + diagonal
  ck_activation activation;
  int32_t accumulate;      // y is read too: gather adds to it, masked copy keeps some of it
  int32_t variant;         // which of a kernel's functions, where it has several: ck_binary, ck_reduction
  float low, high;         // clamp
  size_t power;            // repu: the exponent, at least 1
  ck_dtype x_type, other_type, y_type, z_type;
} ck_rows;

// One block of C = epilogue(alpha A B + beta C): the work of a GEMM kernel between two cache levels.
// First K slice: beta as asked. Later slices: beta 1. Last slice: bias, activation, factor and residual set.
typedef struct ck_gemm_block {
  size_t m, n, k;
  const float *a;         // a_packed: [m/MR][k][MR] zero-padded; else element (i, p) at a[i * a_rs + p]
  size_t a_rs;
  int32_t a_packed;
  const void *codes;         // f32_gemm_quantized and _quantized8, instead of a: [m, k], of f32_quantize or f32_quantize8
  const float *code_scales;  // [m, k / 32]
  const int32_t *code_sums;  // [m, k / 32 parts]: sums of the codes that share a weight's scale, or their starts
  const void *b;          // b_ks 0: [n/NR] panels, zero-padded in n; panel j at element j * b_panel
  ck_dtype b_type;  // f32 for f32_gemm_block, 16 bits or f32 (A as it lies) for f32_gemm_stream, a format for f32_gemm_quantized
  size_t b_panel;
  size_t b_ks;  // else B in place: n a multiple of NR / 2, b_panel NR, rows b_ks apart; A must not be packed
  size_t slice;  // f32_gemm_stream: rows of B, at least 1, of bf16 an even number or all, whose sum is added to C before the
                 // next ones begin; k, of at most KC, where A is packed
  float *c;  // [m, n], or NULL where y is set and beta is 0
  size_t c_rs;
  float alpha, beta;  // beta 0 never reads C
  const float *bias;  // [n] or NULL
  const float *factor;  // [m, n] or NULL: what the activation's result is multiplied by; last slice only
  size_t factor_rs;
  const void *residual;  // [m, n] or NULL; last slice only; may equal c, where there is one slice, or y, types and rows alike
  size_t residual_rs;
  ck_dtype residual_type;
  void *y;  // [m, n], where the result goes instead of c; or NULL; last slice only
  size_t y_rs;
  ck_dtype y_type;
  ck_activation activation;
} ck_gemm_block;

// Makes C, and what its finish reads and writes, those of n columns of `all` from column j on; the rest of `block` stays.
static inline void ck_gemm_columns(ck_gemm_block *block, const ck_gemm_block *all, size_t j, size_t n) {
  block->n = n, block->c = all->c ? all->c + j : 0;
  block->bias = all->bias ? all->bias + j : 0, block->factor = all->factor ? all->factor + j : 0;
  block->residual = all->residual ? (const char *)all->residual + j * ck_dtype_size(all->residual_type) : 0;
  block->y = all->y ? (char *)all->y + j * ck_dtype_size(all->y_type) : 0;
}

#endif

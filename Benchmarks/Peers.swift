import Foundation
import Quern
import QuernTesting

#if OpenBLAS
  import COpenBLAS
#endif

/// Libraries called directly, without this package in between.
enum Peers {
  static let openBLAS = "openblas"

  /// A call that is ready to run. `enter` comes before a turn of it, `leave` after.
  struct Call {
    let product: PlainProduct
    let run, enter, leave: () -> Void
  }

  /// `cblas_sgemm` on the case's operands with OpenBLAS's own threads; `nil` for an operation it does not have.
  static func openBLAS(_ workload: Workload, threads: Int, work: Double) throws -> Contender? {
    guard let call = try openBLASCall(workload, threads: threads) else { return nil }
    let plain = call.product.workload
    return try Contender(
      name: openBLAS, isa: coreName, threads: threads, note: "cblas_sgemm on the same operands, without the epilogue",
      workload: plain, expectation: try plain.expectation(work: work), operation: workload.operation, call: call.run,
      enter: call.enter, leave: call.leave)
  }

  /// - Parameter usesVectors: whether one row times a matrix is `cblas_sgemv`.
  static func openBLASCall(_ workload: Workload, threads: Int, usesVectors: Bool = false) throws -> Call? {
    #if OpenBLAS
      guard let product = try workload.plainProduct?(), let gemm = Gemm(product) else { return nil }
      let isVector = usesVectors && product.c.shape[0] == 1 && product.c.shape[1] == 1
      return Call(
        product: product, run: isVector ? gemm.runVector : gemm.run,
        enter: { openblas_set_num_threads(Int32(threads)) },
        leave: {
          openblas_set_num_threads(1)
          // Its threads poll for tens of milliseconds after a call, on cores that the next contender needs.
          if threads > 1 { awaitQuiet() }
        })
    #else
      return nil
    #endif
  }

  /// The kernels that OpenBLAS chose, as it names them.
  static var coreName: String {
    #if OpenBLAS
      String(cString: openblas_get_corename()).lowercased()
    #else
      "none"
    #endif
  }

  /// Sleeps until this process uses next to no processor time.
  private static func awaitQuiet() {
    let slice = 0.002
    for _ in 0..<100 {
      let (wall, used) = (Stopwatch.now(), Stopwatch.processSeconds())
      Thread.sleep(forTimeInterval: slice)
      if Stopwatch.processSeconds() - used < 0.05 * (Stopwatch.now() - wall) { return }
    }
  }
}

#if OpenBLAS
  /// A batch of products as cblas takes them.
  private struct Gemm {
    let product: PlainProduct
    let a, b: (transpose: CBLAS_TRANSPOSE, stride: Int32)

    /// `nil` where an operand has unit stride along neither axis.
    init?(_ product: PlainProduct) {
      func layout(_ view: TensorView) -> (transpose: CBLAS_TRANSPOSE, stride: Int32)? {
        if view.strides[2] == 1 { return (CblasNoTrans, Int32(view.strides[1])) }
        return view.strides[1] == 1 ? (CblasTrans, Int32(view.strides[2])) : nil
      }
      guard product.a.dataType == .f32, product.b.dataType == .f32, let a = layout(product.a), let b = layout(product.b)
      else { return nil }
      (self.product, self.a, self.b) = (product, a, b)
    }

    func run() {
      let (x, y, z) = (product.a, product.b, product.c)
      let (m, n, k) = (z.shape[1], z.shape[2], x.shape[2])
      for index in 0..<z.shape[0] {
        cblas_sgemm(
          CblasRowMajor, a.transpose, b.transpose, Int32(m), Int32(n), Int32(k), 1,
          x.base + index * x.strides[0], a.stride,
          y.base + (y.shape[0] == 1 ? 0 : index * y.strides[0]), b.stride,
          0, z.base + index * z.strides[0], Int32(n))
      }
    }

    /// The one row as a vector: B transposed times it.
    func runVector() {
      let (n, k) = (Int32(product.c.shape[2]), Int32(product.a.shape[2]))
      let isTransposed = b.transpose == CblasTrans
      cblas_sgemv(
        CblasRowMajor, isTransposed ? CblasNoTrans : CblasTrans, isTransposed ? n : k, isTransposed ? k : n, 1,
        product.b.base, b.stride, product.a.base, Int32(product.a.strides[2]), 0, product.c.base, 1)
    }
  }
#endif

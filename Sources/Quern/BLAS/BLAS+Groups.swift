#if OpenBLAS
  extension BLASBackend {
    public func groupedLinear(
      _ x: TensorView, weights: [PackedMatrix], epilogue: Epilogue, residual: TensorView?, into y: MutableTensor
    ) {
      groupedLinearByLinear(x, weights: weights, epilogue: epilogue, residual: residual, into: y)
    }

    public func expertLinear(
      _ x: TensorView, segments: Segments, weights: [PackedMatrix], epilogue: Epilogue, residual: TensorView?,
      into y: MutableTensor
    ) {
      expertLinearByLinear(x, segments: segments, weights: weights, epilogue: epilogue, residual: residual, into: y)
    }
  }
#endif

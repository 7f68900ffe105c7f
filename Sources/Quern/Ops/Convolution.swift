/// Convolution. See ``Backend`` for what every requirement may rely on.
public protocol ConvolutionOperations {
}

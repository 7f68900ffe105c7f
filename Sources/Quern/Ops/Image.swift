/// Pooling, resampling and padding of images. See ``Backend`` for what every requirement may rely on.
public protocol ImageOperations {
}

/// Positions: rotary embeddings, biases, the key-value cache. See ``Backend`` for what every requirement may rely on.
public protocol PositionOperations {
}

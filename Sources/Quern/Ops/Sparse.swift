/// Block-sparse and structured products. See ``Backend`` for what every requirement may rely on.
public protocol SparseOperations {
}

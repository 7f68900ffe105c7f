/// Copies, reductions and other movement of data. See ``Backend`` for what every requirement may rely on.
public protocol DataOperations {
}

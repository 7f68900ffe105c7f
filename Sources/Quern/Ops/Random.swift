/// Counter-based random numbers. See ``Backend`` for what every requirement may rely on.
public protocol RandomOperations {
}

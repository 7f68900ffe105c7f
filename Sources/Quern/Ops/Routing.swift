/// Routing of rows: top-k, scatter, experts. See ``Backend`` for what every requirement may rely on.
public protocol RoutingOperations {
}

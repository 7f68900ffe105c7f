import Quern
import Testing

/// `body` must throw a ``QuernError`` whose text has `reason`.
func refuses(_ reason: String, at location: SourceLocation = #_sourceLocation, _ body: () throws -> Void) {
  let error = #expect(throws: QuernError.self, sourceLocation: location) { try body() }
  #expect(error?.description.contains(reason) == true, "\(String(describing: error))", sourceLocation: location)
}

/// `body` must throw an invalid operand of `operation`, for a reason that has `text`.
func refuses(
  _ operation: Quern.Operation, _ text: String, at location: SourceLocation = #_sourceLocation,
  _ body: () throws -> Void
) {
  do {
    try body()
    Issue.record("accepted what it should refuse: \(text)", sourceLocation: location)
  } catch QuernError.invalidOperand(let refused, let reason) {
    #expect(refused == operation && reason.contains(text), "\(reason)", sourceLocation: location)
  } catch {
    Issue.record("expected an invalid operand, got \(error)", sourceLocation: location)
  }
}

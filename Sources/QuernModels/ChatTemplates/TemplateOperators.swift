extension TemplateEvaluator {
  mutating func unary(
    _ sign: TemplateExpression.Operator, _ operand: TemplateExpression, _ scope: TemplateScope
  ) throws(TemplateError) -> TemplateResult {
    if sign == .not { return .data(.bool(try !isTrue(operand, scope))) }
    let value = try data(operand, scope)
    if case .double(let number) = value { return .data(.double(sign == .subtract ? -number : number)) }
    guard let integer = value.integer else {
      throw TemplateError(offset: operand.offset, reason: "\(value.kind) has no sign")
    }
    let (negated, overflow) = 0.subtractingReportingOverflow(integer)
    if sign == .subtract, overflow { throw tooLarge(operand.offset) }
    return .data(.int(sign == .subtract ? negated : integer))
  }

  mutating func binary(
    _ found: TemplateExpression.Operator, _ left: TemplateExpression, _ right: TemplateExpression,
    _ scope: TemplateScope, _ offset: Int
  ) throws(TemplateError) -> TemplateResult {
    let first = try evaluate(left, scope)
    switch found {
    case .or: return isTrue(first) ? first : try evaluate(right, scope)
    case .and: return isTrue(first) ? try evaluate(right, scope) : first
    case .concatenate:
      let second = try evaluate(right, scope)
      return try string(text(of: first, left.offset) + text(of: second, right.offset), offset)
    default:
      return try arithmetic(found, data(first, left.offset), data(right, scope), right.offset)
    }
  }

  private func tooLarge(_ offset: Int) -> TemplateError {
    TemplateError(offset: offset, reason: "the result does not fit 64 bits")
  }

  private mutating func arithmetic(
    _ found: TemplateExpression.Operator, _ a: TemplateValue, _ b: TemplateValue, _ offset: Int
  ) throws(TemplateError) -> TemplateResult {
    switch (found, a, b) {
    case (.add, .string(let a), .string(let b)): return try string(a + b, offset)
    case (.add, .array(let a), .array(let b)): return try array(a + b, offset)
    case (.multiply, .string(let text), _), (.multiply, _, .string(let text)):
      guard let count = a.integer ?? b.integer else { break }
      let (length, overflow) = text.utf8.count.multipliedReportingOverflow(by: max(count, 0))
      try checkLength(overflow ? .max : length, offset)
      return .data(.string(text.isEmpty || count <= 0 ? "" : String(repeating: text, count: count)))
    default:
      if let a = a.integer, let b = b.integer, found != .divide { return try integers(found, a, b, offset) }
      if let a = a.number, let b = b.number { return try numbers(found, a, b, offset) }
    }
    throw TemplateError(offset: offset, reason: "\(found.rawValue) does not take \(a.kind) and \(b.kind)")
  }

  private func integers(
    _ found: TemplateExpression.Operator, _ a: Int, _ b: Int, _ offset: Int
  ) throws(TemplateError) -> TemplateResult {
    let result: (partialValue: Int, overflow: Bool)
    switch found {
    case .add: result = a.addingReportingOverflow(b)
    case .subtract: result = a.subtractingReportingOverflow(b)
    case .multiply: result = a.multipliedReportingOverflow(by: b)
    default:
      guard b != 0 else { throw TemplateError(offset: offset, reason: "division by zero") }
      let (quotient, overflow) = a.dividedReportingOverflow(by: b)
      if overflow { throw tooLarge(offset) }
      // Python rounds down, and the remainder has the sign of the divisor.
      let remainder = a - quotient * b
      let isBelow = remainder != 0 && (remainder < 0) != (b < 0)
      result = (found == .floorDivide ? quotient - (isBelow ? 1 : 0) : remainder + (isBelow ? b : 0), false)
    }
    if result.overflow { throw tooLarge(offset) }
    return .data(.int(result.partialValue))
  }

  private func numbers(
    _ found: TemplateExpression.Operator, _ a: Double, _ b: Double, _ offset: Int
  ) throws(TemplateError) -> TemplateResult {
    switch found {
    case .add: return .data(.double(a + b))
    case .subtract: return .data(.double(a - b))
    case .multiply: return .data(.double(a * b))
    default:
      guard b != 0 else { throw TemplateError(offset: offset, reason: "division by zero") }
      if found == .divide { return .data(.double(a / b)) }
      let remainder = a.truncatingRemainder(dividingBy: b)
      let isBelow = remainder != 0 && (remainder < 0) != (b < 0)
      return .data(.double(found == .floorDivide ? (a / b).rounded(.down) : isBelow ? remainder + b : remainder))
    }
  }

  // MARK: Comparison

  mutating func comparison(
    _ first: TemplateExpression, _ rest: [(TemplateExpression.Operator, TemplateExpression)], _ scope: TemplateScope
  ) throws(TemplateError) -> TemplateResult {
    var left = try evaluate(first, scope)
    for (found, expression) in rest {
      let right = try evaluate(expression, scope)
      guard try compare(found, left, right, expression.offset) else { return .data(.bool(false)) }
      left = right
    }
    return .data(.bool(true))
  }

  mutating func compare(
    _ found: TemplateExpression.Operator, _ a: TemplateResult, _ b: TemplateResult, _ offset: Int
  ) throws(TemplateError) -> Bool {
    switch found {
    case .equal: return try isEqual(a, b, offset)
    case .notEqual: return try !isEqual(a, b, offset)
    case .isIn: return try contains(b, a, offset)
    case .isNotIn: return try !contains(b, a, offset)
    default: return try isOrdered(found, data(a, offset), data(b, offset), offset)
    }
  }

  private mutating func isEqual(_ a: TemplateResult, _ b: TemplateResult, _ offset: Int) throws(TemplateError) -> Bool {
    switch (a, b) {
    case (.undefined, .undefined): return true
    case (.undefined, _), (_, .undefined): return false
    default:
      let (a, b) = (try data(a, offset), try data(b, offset))
      try charge(a.costOfComparing(b), offset)
      return a == b
    }
  }

  private func isOrdered(
    _ found: TemplateExpression.Operator, _ a: TemplateValue, _ b: TemplateValue, _ offset: Int
  ) throws(TemplateError) -> Bool {
    let (isLess, isGreater): (Bool, Bool)
    if case .string(let a) = a, case .string(let b) = b {
      (isLess, isGreater) = (UTF8Key(a) < UTF8Key(b), UTF8Key(b) < UTF8Key(a))
    } else if let a = a.integer, let b = b.integer {
      (isLess, isGreater) = (a < b, a > b)
    } else if let a = a.number, let b = b.number {
      if a.isNaN || b.isNaN { return false }
      (isLess, isGreater) = (a < b, a > b)
    } else {
      throw TemplateError(offset: offset, reason: "\(found.rawValue) does not take \(a.kind) and \(b.kind)")
    }
    switch found {
    case .less: return isLess
    case .lessOrEqual: return !isGreater
    case .greater: return isGreater
    default: return !isLess
    }
  }

  /// `element in container`.
  private mutating func contains(
    _ container: TemplateResult, _ element: TemplateResult, _ offset: Int
  ) throws(TemplateError) -> Bool {
    if case .undefined = container { return false }
    if case .namespace(let namespace) = container, case .data(.string(let name)) = element {
      return namespace.members[name] != nil
    }
    let container = try data(container, offset)
    if case .undefined = element, case .array = container { return false }
    let element = try data(element, offset)
    switch (container, element) {
    case (.string(let text), .string(let part)):
      try charge(text.utf8.count / 16, offset)
      return PythonText.contains(text, part)
    case (.array(let elements), _):
      try charge(elements.reduce(0) { $0 + $1.costOfComparing(element) }, offset)
      return elements.contains(element)
    case (.object(let object), .string(let key)): return object[key] != nil
    case (.object, _): return false
    default:
      throw TemplateError(offset: offset, reason: "in does not take \(element.kind) and \(container.kind)")
    }
  }

  // MARK: Parts

  mutating func attribute(
    _ base: TemplateResult, _ name: String, _ offset: Int
  ) throws(TemplateError) -> TemplateResult {
    switch base {
    case .loop(let loop): return try self.loop(loop, name, offset)
    case .namespace(let namespace):
      return namespace.members[name].map { .data($0) } ?? .undefined("the attribute \(name)")
    case .data(.object(let object)):
      // Python finds the methods of its dictionaries before the keys.
      if Self.objectMethods.contains(name) {
        throw TemplateError(
          offset: offset, reason: "\(name) is a method, which must be called; a key is read by ['\(name)']")
      }
      return object[name].map { .data($0) } ?? .undefined("the attribute \(name)")
    case .undefined: _ = try data(base, offset)
    case .data, .macro, .function: break
    }
    return .undefined("the attribute \(name)")
  }

  private func loop(_ loop: TemplateLoop, _ name: String, _ offset: Int) throws(TemplateError) -> TemplateResult {
    let (index, count) = (loop.index, loop.elements.count)
    switch name {
    case "index": return .data(.int(index + 1))
    case "index0": return .data(.int(index))
    case "revindex": return .data(.int(count - index))
    case "revindex0": return .data(.int(count - index - 1))
    case "first": return .data(.bool(index == 0))
    case "last": return .data(.bool(index == count - 1))
    case "length": return .data(.int(count))
    case "previtem": return index > 0 ? .data(loop.elements[index - 1]) : .undefined("loop.previtem")
    case "nextitem": return index + 1 < count ? .data(loop.elements[index + 1]) : .undefined("loop.nextitem")
    default: throw TemplateError(offset: offset, reason: "loop.\(name) is not read")
    }
  }

  mutating func subscripted(
    _ base: TemplateExpression, _ key: TemplateExpression, _ scope: TemplateScope, _ offset: Int
  ) throws(TemplateError) -> TemplateResult {
    let container = try evaluate(base, scope)
    let key = try data(key, scope)
    if case .namespace = container, case .string(let name) = key { return try attribute(container, name, offset) }
    if case .loop = container, case .string(let name) = key { return try attribute(container, name, offset) }
    switch (try data(container, base.offset), key) {
    case (.object(let object), .string(let name)):
      return object[name].map { .data($0) } ?? .undefined("the key \(name)")
    case (.array(let elements), _):
      guard let place = key.integer else { break }
      let index = place < 0 ? place + elements.count : place
      return elements.indices.contains(index) ? .data(elements[index]) : .undefined("the element \(place)")
    case (.string(let text), _):
      guard let place = key.integer else { break }
      try charge(text.utf8.count / 16, offset)
      let scalars = Array(text.unicodeScalars)
      let index = place < 0 ? place + scalars.count : place
      guard scalars.indices.contains(index) else { return .undefined("the character \(place)") }
      return .data(.string(String(Character(scalars[index]))))
    default: break
    }
    return .undefined("the element \(key.text ?? key.kind)")
  }

  mutating func slice(
    _ base: TemplateExpression, _ parts: [TemplateExpression?], _ scope: TemplateScope, _ offset: Int
  ) throws(TemplateError) -> TemplateResult {
    let value = try data(base, scope)
    var places: [Int?] = []
    for part in parts {
      guard let part, case let found = try data(part, scope), found != .none else {
        places.append(nil)
        continue
      }
      guard let place = found.integer else {
        throw TemplateError(offset: part.offset, reason: "\(found.kind) is no place in a list")
      }
      places.append(place)
    }
    let step = places[2] ?? 1
    guard step != 0 else { throw TemplateError(offset: offset, reason: "a slice cannot have steps of 0") }
    switch value {
    case .array(let elements):
      let taken = PythonText.slice(elements.count, from: places[0], to: places[1], step: step)
      return try array(taken.map { elements[$0] }, offset)
    case .string(let text):
      try charge(text.utf8.count / 16, offset)
      let scalars = Array(text.unicodeScalars)
      let taken = PythonText.slice(scalars.count, from: places[0], to: places[1], step: step)
      return try string(PythonText.string(of: taken.map { scalars[$0] }), offset)
    default:
      throw TemplateError(offset: offset, reason: "\(value.kind) has no slices")
    }
  }
}

extension TemplateValue {
  /// Steps that a comparison takes at most, 16 bytes of text being one.
  func costOfComparing(_ other: TemplateValue) -> Int {
    switch (self, other) {
    case (.string(let a), .string(let b)): 1 + min(a.utf8.count, b.utf8.count) / 16
    case (.array(let a), .array(let b)):
      a.count == b.count ? zip(a, b).reduce(1) { $0 + $1.0.costOfComparing($1.1) } : 1
    case (.object(let a), .object(let b)):
      a.pairs.count == b.pairs.count
        ? a.pairs.reduce(1) { $0 + 1 + (b[$1.key].map($1.value.costOfComparing) ?? 0) } : 1
    default: 1
    }
  }
}

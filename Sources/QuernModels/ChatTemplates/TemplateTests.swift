/// What stands behind `is`.
enum TemplateTests {
  /// Tests that take an argument, which need not stand in brackets.
  static let taking: Set<String> = [
    "divisibleby", "eq", "equalto", "ne", "lt", "lessthan", "le", "gt", "greaterthan", "ge", "in", "sameas",
  ]

  static let plain: Set<String> = [
    "defined", "undefined", "none", "string", "mapping", "iterable", "sequence", "number", "integer", "float",
    "boolean",
    "true", "false", "odd", "even", "callable", "lower", "upper",
  ]
}

extension TemplateEvaluator {
  mutating func test(_ name: String, _ value: TemplateResult, _ call: TemplateCall) throws(TemplateError) -> Bool {
    if TemplateTests.taking.contains(name) {
      guard call.positional.count == 1, call.named.isEmpty else {
        throw TemplateError(offset: call.offset, reason: "the test \(name) takes one argument")
      }
      return try test(name, value, call.positional[0], call.offset)
    }
    guard TemplateTests.plain.contains(name) else {
      let known = TemplateTests.plain.union(TemplateTests.taking).sorted().joined(separator: ", ")
      throw TemplateError(offset: call.offset, reason: "the test \(name) is not read; those that are: \(known)")
    }
    try call.expect("the test \(name)", [])
    switch (name, value) {
    case ("defined", .undefined), ("none", .undefined), ("mapping", .undefined), ("string", .undefined): return false
    case ("defined", _), ("undefined", .undefined), ("iterable", .undefined), ("sequence", .undefined): return true
    case ("callable", .macro), ("callable", .function): return true
    case ("odd", _), ("even", _):
      guard let integer = try data(value, call.offset).integer else {
        throw TemplateError(offset: call.offset, reason: "\(name) needs an integer")
      }
      return (integer & 1 == 1) == (name == "odd")
    case (_, .data(let value)):
      try charge(value.costOfComparing(value), call.offset)
      return test(name, value)
    default: return false
    }
  }

  private func test(_ name: String, _ value: TemplateValue) -> Bool {
    switch (name, value) {
    case ("none", .none), ("string", .string), ("mapping", .object), ("boolean", .bool), ("integer", .int),
      ("float", .double), ("true", .bool(true)), ("false", .bool(false)):
      true
    case ("number", _): value.number != nil
    case ("iterable", .string), ("iterable", .array), ("iterable", .object): true
    case ("sequence", .string), ("sequence", .array), ("sequence", .object): true
    case ("lower", _):
      value.text.map { $0 == $0.lowercased() && $0.unicodeScalars.contains { $0.properties.isCased } } ?? false
    case ("upper", _):
      value.text.map { $0 == $0.uppercased() && $0.unicodeScalars.contains { $0.properties.isCased } } ?? false
    default: false
    }
  }

  private mutating func test(
    _ name: String, _ value: TemplateResult, _ other: TemplateResult, _ offset: Int
  ) throws(TemplateError) -> Bool {
    switch name {
    case "eq", "equalto": return try compare(.equal, value, other, offset)
    case "ne": return try compare(.notEqual, value, other, offset)
    case "lt", "lessthan": return try compare(.less, value, other, offset)
    case "le": return try compare(.lessOrEqual, value, other, offset)
    case "gt", "greaterthan": return try compare(.greater, value, other, offset)
    case "ge": return try compare(.greaterOrEqual, value, other, offset)
    case "in": return try compare(.isIn, value, other, offset)
    case "divisibleby":
      guard let a = try data(value, offset).integer, let b = try data(other, offset).integer, b != 0 else {
        throw TemplateError(offset: offset, reason: "divisibleby needs integers, and not 0")
      }
      return b == -1 || a % b == 0
    default:  // sameas
      switch (try data(value, offset), try data(other, offset)) {
      case (.none, .none): return true
      case (.bool(let a), .bool(let b)): return a == b
      case (.none, _), (.bool, _), (_, .none), (_, .bool): return false
      default: throw TemplateError(offset: offset, reason: "sameas is read for true, false and none alone")
      }
    }
  }
}

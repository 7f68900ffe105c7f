extension TemplateEvaluator {
  /// Methods of Python's dictionaries, those that are not read among them: as attributes they come before keys.
  static let objectMethods: Set<String> = [
    "items", "keys", "values", "get", "copy", "pop", "update", "clear", "setdefault", "popitem", "fromkeys",
  ]

  mutating func callMethod(
    _ base: TemplateExpression, _ name: String, _ arguments: TemplateArguments, _ scope: TemplateScope, _ offset: Int
  ) throws(TemplateError) -> TemplateResult {
    let value = try evaluate(base, scope)
    let call = try self.arguments(arguments, scope, offset)
    if case .loop(let loop) = value, name == "cycle", !call.positional.isEmpty {
      return call.positional[loop.index % call.positional.count]
    }
    switch try data(value, base.offset) {
    case .string(let text): return try method(name, of: text, call)
    case .object(let object): return try method(name, of: object, call)
    case let value:
      throw TemplateError(offset: offset, reason: "the method \(name) of \(value.kind) is not read")
    }
  }

  private mutating func method(
    _ name: String, of object: TemplateObject, _ call: TemplateCall
  ) throws(TemplateError) -> TemplateResult {
    switch name {
    case "items":
      try call.expect(name, [])
      return try array(object.pairs.map { .array([.string($0.key), $0.value]) }, call.offset)
    case "keys":
      try call.expect(name, [])
      return try array(object.pairs.map { .string($0.key) }, call.offset)
    case "values":
      try call.expect(name, [])
      return try array(object.pairs.map(\.value), call.offset)
    case "get":
      try call.expect(name, ["key", "default"])
      guard let first = call.positional.first else {
        throw TemplateError(offset: call.offset, reason: "get needs a key")
      }
      if case .string(let key) = try data(first, call.offset), let value = object[key] { return .data(value) }
      return call.positional.count > 1 ? call.positional[1] : .data(.none)
    default:
      throw TemplateError(
        offset: call.offset,
        reason: "the method \(name) of an object is not read; those that are: items, keys, values, get")
    }
  }

  // MARK: Strings

  /// An argument that is a string; nil where it is none or not given.
  func text(_ call: TemplateCall, _ place: Int, _ name: String) throws(TemplateError) -> String? {
    guard let argument = call.argument(place, name) else { return nil }
    switch try data(argument, call.offset) {
    case .string(let text): return text
    case .none: return nil
    case let value:
      throw TemplateError(offset: call.offset, reason: "\(name) is \(value.kind), where a string is needed")
    }
  }

  func integer(_ call: TemplateCall, _ place: Int, _ name: String) throws(TemplateError) -> Int? {
    guard let argument = call.argument(place, name) else { return nil }
    let value = try data(argument, call.offset)
    if value == .none { return nil }
    guard let integer = value.integer else {
      throw TemplateError(offset: call.offset, reason: "\(name) is \(value.kind), where an integer is needed")
    }
    return integer
  }

  func boolean(_ call: TemplateCall, _ place: Int, _ name: String) -> Bool {
    call.argument(place, name).map(isTrue) ?? false
  }

  private func required(_ text: String?, _ what: String, _ call: TemplateCall) throws(TemplateError) -> String {
    guard let text else { throw TemplateError(offset: call.offset, reason: "\(what) needs a string") }
    return text
  }

  private mutating func method(
    _ name: String, of text: String, _ call: TemplateCall
  ) throws(TemplateError) -> TemplateResult {
    let offset = call.offset
    try charge(text.utf8.count / 16, offset)
    switch name {
    case "strip", "lstrip", "rstrip":
      try call.expect(name, ["chars"])
      let side: PythonText.Side = name == "strip" ? .both : name == "lstrip" ? .left : .right
      return try string(PythonText.strip(text, side, characters: self.text(call, 0, "chars")), offset)
    case "split", "rsplit": return try split(text, call, fromEnd: name == "rsplit")
    case "startswith", "endswith": return try affix(text, name, call)
    case "replace": return try replace(text, call)
    case "join":
      try call.expect(name, ["elements"])
      return try join(iterated(call.positional.first ?? .undefined("elements"), offset), text, offset)
    case "find":
      try call.expect(name, ["part"])
      let part = try required(self.text(call, 0, "part"), name, call)
      guard let place = PythonText.find(Array(part.utf8), in: Array(text.utf8)) else { return .data(.int(-1)) }
      return .data(.int(String(decoding: Array(text.utf8)[..<place], as: UTF8.self).unicodeScalars.count))
    case "count":
      try call.expect(name, ["part"])
      let part = try required(self.text(call, 0, "part"), name, call)
      return .data(
        .int(part.isEmpty ? text.unicodeScalars.count + 1 : PythonText.split(text, part, limit: nil).count - 1))
    case "removeprefix", "removesuffix":
      try call.expect(name, ["part"])
      let part = try required(self.text(call, 0, "part"), name, call)
      if name == "removeprefix" {
        guard PythonText.hasPrefix(text, part) else { return .data(.string(text)) }
        return .data(.string(String(text.unicodeScalars.dropFirst(part.unicodeScalars.count))))
      }
      guard PythonText.hasSuffix(text, part) else { return .data(.string(text)) }
      return .data(.string(String(text.unicodeScalars.dropLast(part.unicodeScalars.count))))
    default:
      guard let converted = Self.converted(text, name) else {
        throw TemplateError(offset: offset, reason: "the method \(name) of a string is not read; \(Self.stringMethods)")
      }
      try call.expect(name, [])
      return converted
    }
  }

  private static let stringMethods =
    "those that are: strip, lstrip, rstrip, split, rsplit, startswith, endswith, replace, join, find, count, removeprefix, "
    + "removesuffix, upper, lower, title, capitalize, isdigit, isspace"

  private static func converted(_ text: String, _ name: String) -> TemplateResult? {
    switch name {
    case "upper": .data(.string(text.uppercased()))
    case "lower": .data(.string(text.lowercased()))
    case "title": .data(.string(PythonText.title(text)))
    case "capitalize": .data(.string(PythonText.capitalized(text)))
    case "isdigit":
      .data(.bool(!text.isEmpty && text.unicodeScalars.allSatisfy { $0.properties.generalCategory == .decimalNumber }))
    case "isspace": .data(.bool(!text.isEmpty && text.unicodeScalars.allSatisfy(PythonText.isSpace)))
    default: nil
    }
  }

  private mutating func split(
    _ text: String, _ call: TemplateCall, fromEnd: Bool
  ) throws(TemplateError) -> TemplateResult {
    try call.expect("split", ["sep", "maxsplit"])
    let separator = try self.text(call, 0, "sep")
    guard separator?.isEmpty != true else {
      throw TemplateError(offset: call.offset, reason: "split needs a separator that is not empty")
    }
    let limit = try integer(call, 1, "maxsplit").flatMap { $0 < 0 ? nil : $0 }
    // The most parts that there can be.
    try charge(text.utf8.count / (separator?.utf8.count ?? 2), call.offset)
    let parts = PythonText.split(text, separator, limit: limit, fromEnd: fromEnd)
    return try array(parts.map { .string($0) }, call.offset)
  }

  private mutating func affix(
    _ text: String, _ name: String, _ call: TemplateCall
  ) throws(TemplateError) -> TemplateResult {
    try call.expect(name, ["affix"])
    guard let first = call.positional.first else {
      throw TemplateError(offset: call.offset, reason: "\(name) needs a string")
    }
    let given = try data(first, call.offset)
    var affixes = [given]
    if case .array(let several) = given { affixes = several }
    for affix in affixes {
      guard case .string(let part) = affix else {
        throw TemplateError(offset: call.offset, reason: "\(name) takes strings, not \(affix.kind)")
      }
      try charge(1 + part.utf8.count / 16, call.offset)
      if name == "startswith" ? PythonText.hasPrefix(text, part) : PythonText.hasSuffix(text, part) {
        return .data(.bool(true))
      }
    }
    return .data(.bool(false))
  }

  mutating func replace(_ text: String, _ call: TemplateCall) throws(TemplateError) -> TemplateResult {
    try call.expect("replace", ["old", "new", "count"])
    let old = try required(self.text(call, 0, "old"), "replace", call)
    let new = try required(self.text(call, 1, "new"), "replace", call)
    let limit = try integer(call, 2, "count").flatMap { $0 < 0 ? nil : $0 }
    // The most that can come of it, before any of it is made.
    let places = text.utf8.count / max(old.utf8.count, 1) + 1
    let (growth, overflow) = places.multipliedReportingOverflow(by: new.utf8.count)
    if overflow || growth > limits.outputBytes {
      let found = old.isEmpty ? text.unicodeScalars.count + 1 : PythonText.split(text, old, limit: limit).count - 1
      let (exact, overflow) = found.multipliedReportingOverflow(by: new.utf8.count)
      try checkLength(overflow ? .max : exact, call.offset)
    }
    return try string(PythonText.replace(text, old, with: new, limit: limit), call.offset)
  }

  mutating func join(
    _ elements: [TemplateValue], _ separator: String, _ offset: Int
  ) throws(TemplateError) -> TemplateResult {
    var result = ""
    for (index, element) in elements.enumerated() {
      if index > 0 { result += separator }
      result += try text(of: .data(element), offset)
      guard result.utf8.count <= limits.outputBytes else { break }
    }
    return try string(result, offset)
  }

  // MARK: Functions

  static let functions = ["range", "namespace", "dict", "raise_exception"]

  mutating func function(_ name: String, _ call: TemplateCall) throws(TemplateError) -> TemplateResult {
    switch name {
    case "namespace": return .namespace(TemplateNamespace(try object(call)))
    case "dict": return .data(.object(try object(call)))
    case "range": return try range(call)
    case "raise_exception":
      try call.expect(name, ["message"])
      let message = try call.positional.first.map { (first) throws(TemplateError) in try text(of: first, call.offset) }
      throw TemplateError(offset: call.offset, reason: "the template refuses: \(message ?? "")")
    default:
      try call.expect(name, ["format"])
      guard let clock, let format = try text(call, 0, "format") else {
        throw TemplateError(offset: call.offset, reason: "\(name) needs a format, and a clock from the caller")
      }
      return try string(clock(format), call.offset)
    }
  }

  private mutating func range(_ call: TemplateCall) throws(TemplateError) -> TemplateResult {
    try call.expect("range", ["start", "stop", "step"])
    var bounds: [Int] = []
    for place in call.positional.indices {
      guard let bound = try integer(call, place, "a bound of range") else { break }
      bounds.append(bound)
    }
    guard bounds.count == call.positional.count, !bounds.isEmpty else {
      throw TemplateError(offset: call.offset, reason: "range needs integers")
    }
    let (start, stop) = bounds.count == 1 ? (0, bounds[0]) : (bounds[0], bounds[1])
    let step = bounds.count > 2 ? bounds[2] : 1
    guard step != 0 else { throw TemplateError(offset: call.offset, reason: "range cannot have steps of 0") }
    var values: [TemplateValue] = []
    for value in stride(from: start, to: stop, by: step) {
      try charge(Self.stepsOfElement, call.offset)
      values.append(.int(value))
    }
    return .data(.array(values))
  }
}

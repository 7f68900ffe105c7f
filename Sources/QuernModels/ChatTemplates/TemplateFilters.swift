extension TemplateEvaluator {
  private static let filters =
    "abs, capitalize, count, d, default, dictsort, first, float, indent, int, items, join, last, length, list, lower, map, max, "
    + "min, reject, rejectattr, replace, reverse, safe, select, selectattr, sort, string, title, tojson, trim, unique, upper"

  mutating func filter(
    _ name: String, _ value: TemplateResult, _ call: TemplateCall
  ) throws(TemplateError) -> TemplateResult {
    let offset = call.offset
    switch name {
    case "default", "d":
      try call.expect(name, ["default_value", "boolean"])
      let standard = call.argument(0, "default_value") ?? .empty
      if case .undefined = value { return standard }
      return boolean(call, 1, "boolean") && !isTrue(value) ? standard : value
    case "safe", "string":
      try call.expect(name, [])
      return .data(.string(try text(of: value, offset)))
    case "trim", "upper", "lower", "capitalize", "title", "replace", "indent":
      return try textFilter(name, text(of: value, offset), call)
    case "tojson": return try json(data(value, offset), call)
    case "int", "float", "abs": return try number(name, value, call)
    case "length", "count":
      try call.expect(name, [])
      guard case .data(let found) = value else { return .data(.int(try iterated(value, offset).count)) }
      if case .object(let object) = found { return .data(.int(object.pairs.count)) }
      if case .array(let elements) = found { return .data(.int(elements.count)) }
      return .data(.int(try iterated(value, offset).count))
    case "items":
      try call.expect(name, [])
      if case .undefined = value { return .data(.array([])) }
      return try pairs(value, offset)
    case "dictsort": return try sortedPairs(value, call)
    default: return try listFilter(name, iterated(value, offset), value, call)
    }
  }

  // MARK: Text

  private mutating func textFilter(
    _ name: String, _ text: String, _ call: TemplateCall
  ) throws(TemplateError) -> TemplateResult {
    switch name {
    case "trim":
      try call.expect(name, ["chars"])
      return try string(PythonText.strip(text, characters: self.text(call, 0, "chars")), call.offset)
    case "replace": return try replace(text, call)
    case "indent": return try indent(text, call)
    default:
      try call.expect(name, [])
      switch name {
      case "upper": return try string(text.uppercased(), call.offset)
      case "lower": return try string(text.lowercased(), call.offset)
      case "capitalize": return try string(PythonText.capitalized(text), call.offset)
      default: return try string(PythonText.titleOfWords(text), call.offset)
      }
    }
  }

  private mutating func indent(_ text: String, _ call: TemplateCall) throws(TemplateError) -> TemplateResult {
    try call.expect("indent", ["width", "first", "blank"])
    var prefix = "    "
    if let width = call.argument(0, "width"), case .data(.string(let given)) = width {
      prefix = given
    } else if let width = try integer(call, 0, "width") {
      prefix = String(repeating: " ", count: min(max(width, 0), limits.outputBytes))
    }
    let (first, blank) = (boolean(call, 1, "first"), boolean(call, 2, "blank"))
    let lines = PythonText.split(text, "\n", limit: nil)
    let (growth, overflow) = lines.count.multipliedReportingOverflow(by: prefix.utf8.count)
    try checkLength(overflow ? .max : growth, call.offset)
    let indented = lines.enumerated().map { index, line in
      (index == 0 ? first : blank || !line.isEmpty) ? prefix + line : line
    }
    return try string(indented.joined(separator: "\n"), call.offset)
  }

  private mutating func json(_ value: TemplateValue, _ call: TemplateCall) throws(TemplateError) -> TemplateResult {
    try call.expect("tojson", ["ensure_ascii", "indent", "separators", "sort_keys"])
    guard !boolean(call, 0, "ensure_ascii") else {
      throw TemplateError(offset: call.offset, reason: "tojson with ensure_ascii is not read")
    }
    let indent = try integer(call, 1, "indent")
    guard indent.map({ (0...64).contains($0) }) ?? true else {
      throw TemplateError(offset: call.offset, reason: "tojson indents by 0 to 64")
    }
    var separators: (item: String, key: String)?
    if let given = call.argument(2, "separators"), case let pair = try data(given, call.offset), pair != .none {
      guard case .array(let parts) = pair, parts.count == 2, case .string(let item) = parts[0],
        case .string(let key) = parts[1], item.utf8.count + key.utf8.count <= 64
      else { throw TemplateError(offset: call.offset, reason: "separators are two short strings") }
      separators = (item, key)
    }
    try charge(value.count() ?? limits.steps, call.offset)
    var writer = TemplateValue.JSONWriter(
      indent: indent, sortsKeys: boolean(call, 3, "sort_keys"), separators: separators)
    writer.limit = limits.outputBytes
    writer.write(value)
    return try string(writer.text, call.offset)
  }

  private func number(
    _ name: String, _ value: TemplateResult, _ call: TemplateCall
  ) throws(TemplateError) -> TemplateResult {
    if name == "abs" {
      try call.expect(name, [])
      let value = try data(value, call.offset)
      if let integer = value.integer, integer != .min { return .data(.int(abs(integer))) }
      guard let number = value.number else {
        throw TemplateError(offset: call.offset, reason: "\(value.kind) has no magnitude")
      }
      return .data(.double(abs(number)))
    }
    try call.expect(name, ["default"])
    let standard = call.argument(0, "default") ?? .data(name == "int" ? .int(0) : .double(0))
    guard case .data(let value) = value else { return standard }
    var number = value.number
    if case .string(let text) = value {
      let trimmed = PythonText.strip(text)
      if name == "int", let integer = Int(trimmed) { return .data(.int(integer)) }
      number = Double(trimmed)
    }
    if name == "int", let integer = value.integer { return .data(.int(integer)) }
    guard let number else { return standard }
    if name == "float" { return .data(.double(number)) }
    return Int(exactly: number.rounded(.towardZero)).map { .data(.int($0)) } ?? standard
  }

  // MARK: Lists

  private mutating func pairs(_ value: TemplateResult, _ offset: Int) throws(TemplateError) -> TemplateResult {
    guard case .object(let object) = try data(value, offset) else {
      throw TemplateError(offset: offset, reason: "items needs an object")
    }
    return try array(object.pairs.map { .array([.string($0.key), $0.value]) }, offset)
  }

  private mutating func sortedPairs(
    _ value: TemplateResult, _ call: TemplateCall
  ) throws(TemplateError) -> TemplateResult {
    try call.expect("dictsort", ["case_sensitive", "by", "reverse"])
    guard case .object(let object) = try data(value, call.offset) else {
      throw TemplateError(offset: call.offset, reason: "dictsort needs an object")
    }
    guard try (text(call, 1, "by") ?? "key") == "key" else {
      throw TemplateError(offset: call.offset, reason: "dictsort is read by key alone")
    }
    let pairs = object.pairs.map { TemplateValue.array([.string($0.key), $0.value]) }
    let keys = object.pairs.map { TemplateValue.string($0.key) }
    return try sort(
      pairs, by: keys, isCaseSensitive: boolean(call, 0, "case_sensitive"), isReversed: boolean(call, 2, "reverse"),
      call.offset)
  }

  /// `values` in the order of `keys`, equal ones as they were.
  private mutating func sort(
    _ values: [TemplateValue], by keys: [TemplateValue], isCaseSensitive: Bool, isReversed: Bool, _ offset: Int
  ) throws(TemplateError) -> TemplateResult {
    try charge(keys.reduce(0) { $0 + $1.costOfComparing($1) * 16 }, offset)
    let folded = isCaseSensitive ? keys : keys.map(\.folded)
    let areStrings = folded.allSatisfy { if case .string = $0 { true } else { false } }
    guard areStrings || folded.allSatisfy({ $0.number != nil }) else {
      throw TemplateError(offset: offset, reason: "strings and numbers alone can be put in order, and not together")
    }
    func precedes(_ a: TemplateValue, _ b: TemplateValue) -> Bool {
      if case .string(let a) = a, case .string(let b) = b { return UTF8Key(a) < UTF8Key(b) }
      return (a.number ?? 0) < (b.number ?? 0)
    }
    let order = folded.indices.sorted { a, b in
      let (first, second) = isReversed ? (folded[b], folded[a]) : (folded[a], folded[b])
      return precedes(first, second) || !precedes(second, first) && a < b
    }
    return try array(order.map { values[$0] }, offset)
  }

  private mutating func listFilter(
    _ name: String, _ elements: [TemplateValue], _ value: TemplateResult, _ call: TemplateCall
  ) throws(TemplateError) -> TemplateResult {
    let offset = call.offset
    switch name {
    case "list":
      try call.expect(name, [])
      return .data(.array(elements))
    case "first", "last":
      try call.expect(name, [])
      return (name == "first" ? elements.first : elements.last).map { .data($0) }
        ?? .undefined("the \(name) of nothing")
    case "join":
      try call.expect(name, ["d", "attribute"])
      let separator = try call.argument(0, "d").map { (given) throws(TemplateError) in try text(of: given, offset) }
      var joined = elements
      if let attribute = try text(call, 1, "attribute") {
        joined = []
        for element in elements { joined.append(try data(part(attribute, of: element, offset), offset)) }
      }
      return try join(joined, separator ?? "", offset)
    case "reverse":
      try call.expect(name, [])
      if case .data(.string(let text)) = value {
        return .data(.string(PythonText.string(of: text.unicodeScalars.reversed())))
      }
      return .data(.array(elements.reversed()))
    case "sort", "min", "max": return try ordered(name, elements, call)
    case "unique": return try unique(elements, call)
    case "map": return try map(elements, call)
    case "select", "reject", "selectattr", "rejectattr": return try select(name, elements, call)
    default:
      throw TemplateError(offset: offset, reason: "the filter \(name) is not read; those that are: \(Self.filters)")
    }
  }

  private mutating func ordered(
    _ name: String, _ elements: [TemplateValue], _ call: TemplateCall
  ) throws(TemplateError) -> TemplateResult {
    let names = ["reverse", "case_sensitive", "attribute"]
    try call.expect(name, name == "sort" ? names : [])
    var keys = elements
    if let attribute = try text(call, 2, "attribute") {
      keys = []
      for element in elements { keys.append(try data(part(attribute, of: element, call.offset), call.offset)) }
    }
    let sorted = try sort(
      elements, by: keys, isCaseSensitive: boolean(call, 1, "case_sensitive"), isReversed: boolean(call, 0, "reverse"),
      call.offset)
    guard name != "sort", case .data(.array(let values)) = sorted else { return sorted }
    return (name == "min" ? values.first : values.last).map { .data($0) } ?? .undefined("the \(name) of nothing")
  }

  private mutating func unique(
    _ elements: [TemplateValue], _ call: TemplateCall
  ) throws(TemplateError) -> TemplateResult {
    try call.expect("unique", ["case_sensitive"])
    let isCaseSensitive = boolean(call, 0, "case_sensitive")
    var (kept, seen): ([TemplateValue], [TemplateValue]) = ([], [])
    for element in elements {
      try charge(element.costOfComparing(element), call.offset)
      let key = isCaseSensitive ? element : element.folded
      try charge(seen.reduce(1) { $0 + $1.costOfComparing(key) }, call.offset)
      guard !seen.contains(key) else { continue }
      seen.append(key)
      kept.append(element)
    }
    return .data(.array(kept))
  }

  /// The attribute `name` of a value, as `map` and `selectattr` take it: parts between dots, whole numbers being places.
  private mutating func part(
    _ name: String, of value: TemplateValue, _ offset: Int
  ) throws(TemplateError) -> TemplateResult {
    try charge(1 + name.utf8.count / 16, offset)
    var result = TemplateResult.data(value)
    for part in PythonText.split(name, ".", limit: nil) {
      switch try data(result, offset) {
      case .object(let object): result = object[part].map { .data($0) } ?? .undefined("the attribute \(part)")
      case .array(let elements):
        guard let place = Int(part), elements.indices.contains(place) else { return .undefined("the element \(part)") }
        result = .data(elements[place])
      default: return .undefined("the attribute \(part)")
      }
    }
    return result
  }

  private mutating func map(_ elements: [TemplateValue], _ call: TemplateCall) throws(TemplateError) -> TemplateResult {
    var values: [TemplateValue] = []
    if let attribute = try text(call, .max, "attribute") {
      try call.expect("map", ["attribute", "default"])
      for element in elements {
        let found = try part(attribute, of: element, call.offset)
        if case .undefined = found, let standard = call.argument(.max, "default") {
          values.append(try data(standard, call.offset))
        } else {
          values.append(try data(found, call.offset))
        }
      }
    } else {
      guard let name = try text(call, 0, "filter") else {
        throw TemplateError(offset: call.offset, reason: "map needs the name of a filter or an attribute")
      }
      guard name != "map" else { throw TemplateError(offset: call.offset, reason: "map in map is not read") }
      let rest = TemplateCall(offset: call.offset, positional: Array(call.positional.dropFirst()), named: call.named)
      for element in elements { values.append(try data(filter(name, .data(element), rest), call.offset)) }
    }
    return try array(values, call.offset)
  }

  private mutating func select(
    _ name: String, _ elements: [TemplateValue], _ call: TemplateCall
  ) throws(TemplateError) -> TemplateResult {
    var rest = call.positional[...]
    var attribute: String?
    if name.hasSuffix("attr") {
      guard let given = try text(call, 0, "attribute") else {
        throw TemplateError(offset: call.offset, reason: "\(name) needs the name of an attribute")
      }
      attribute = given
      rest = rest.dropFirst()
    }
    var test: String?
    if let given = rest.popFirst() { test = try text(of: given, call.offset) }
    let arguments = TemplateCall(offset: call.offset, positional: Array(rest), named: call.named)
    var kept: [TemplateValue] = []
    for element in elements {
      let value =
        try attribute.map { (attribute) throws(TemplateError) in try part(attribute, of: element, call.offset) }
        ?? .data(element)
      let passes =
        try test.map { (test) throws(TemplateError) in try self.test(test, value, arguments) } ?? isTrue(value)
      if passes == name.hasPrefix("select") { kept.append(element) }
    }
    return try array(kept, call.offset)
  }
}

extension TemplateValue {
  /// As comparisons without regard to case see it.
  fileprivate var folded: TemplateValue {
    if case .string(let text) = self { .string(text.lowercased()) } else { self }
  }
}

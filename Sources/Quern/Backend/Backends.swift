import Synchronization

/// The backends by name: the three that ship, and those that other packages register.
public enum Backends {
  /// Makes a backend, or throws ``QuernError/unavailableBackend(name:reason:valid:)``.
  public typealias Maker = @Sendable (BackendOptions) throws -> any Backend

  /// The backend that runs when nothing else is asked for.
  public static let defaultName = MultithreadedBackend.name

  private static let shipped: [(name: String, make: Maker)] = [
    (ReferenceBackend.name, { _ in ReferenceBackend() }),
    (BLASBackend.name, { try BLASBackend(options: $0) }),
    (MultithreadedBackend.name, { try MultithreadedBackend(options: $0) }),
  ]
  private static let registered = Mutex<[(name: String, make: Maker)]>([])

  /// Adds a backend, so that `QUERN_BACKEND` and ``make(_:options:)`` know it. A later one replaces an earlier one
  /// of the same name.
  public static func register(_ name: String, make: @escaping Maker) {
    registered.withLock { list in
      list.removeAll { $0.name == name }
      list.append((name, make))
    }
  }

  private static var all: [(name: String, make: Maker)] {
    // Built under the lock: a copy taken out would share storage that ``register(_:make:)`` then changes in place.
    registered.withLock { extra in shipped.filter { ship in !extra.contains { $0.name == ship.name } } + extra }
  }

  /// Every name, available or not.
  public static var names: [String] { all.map(\.name) }

  /// The backend of this name, else of `QUERN_BACKEND`, else the default; in a ``VerifyingBackend`` where the options, else
  /// `QUERN_VERIFY`, ask for that.
  ///
  /// - Throws: ``QuernError/unknownBackend(name:valid:)``, ``QuernError/unavailableBackend(name:reason:valid:)``, or
  ///   ``QuernError/invalidSetting(name:value:expected:)`` for a bad environment variable or option.
  public static func make(_ name: String? = nil, options: BackendOptions = BackendOptions()) throws -> any Backend {
    let wanted = try name ?? Settings.environment().backend ?? defaultName
    guard let entry = all.first(where: { $0.name == wanted }) else {
      throw QuernError.unknownBackend(name: wanted, valid: names)
    }
    let verifies = try options.verifies ?? Settings.environmentVerifies()
    do {
      let backend = try entry.make(options)
      return verifies ? VerifyingBackend(backend) : backend
    } catch QuernError.unavailableBackend(_, let reason, _) {
      let valid = names.filter { $0 != wanted && unavailability(of: $0) == nil }
      throw QuernError.unavailableBackend(name: wanted, reason: reason, valid: valid)
    }
  }

  /// Why a backend cannot be made with the defaults, or `nil` where it can.
  public static func unavailability(of name: String) -> String? {
    guard let entry = all.first(where: { $0.name == name }) else { return "no such backend" }
    do {
      _ = try entry.make(BackendOptions())
      return nil
    } catch QuernError.unavailableBackend(_, let reason, _) {
      return reason
    } catch {
      return "\(error)"
    }
  }
}

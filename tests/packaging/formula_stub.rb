# Loads a formula without Homebrew: as much of its language as datacat.rb uses; what it does not know is an error.
#   ruby formula_stub.rb FORMULA facts                  fields, resources and the service block as JSON
#   ruby formula_stub.rb FORMULA install LIBEXEC PREFIX  runs the block `install`; the environment is in LIBEXEC already
#   ruby formula_stub.rb FORMULA test LIBEXEC FOLDER     runs the block `test` in FOLDER
require "fileutils"
require "json"
require "pathname"
require "socket"

class Pathname
  def install(name)
    mkpath
    FileUtils.cp name, self
  end
end

module Language
  module Python
    module Virtualenv
      def virtualenv_install_with_resources = nil # the test has done it
    end
  end
end

# The service block; the rules are those of Library/Homebrew/service.rb.
class Service
  KEYS = %i[keep_alive throttle_interval process_type working_dir log_path error_log_path].freeze
  attr_reader :facts

  def initialize(formula, &block)
    @formula = formula
    @facts = {}
    instance_eval(&block)
  end

  def run(command) = @facts[:run] = command.map(&:to_s)
  def environment_variables(variables) = @facts[:environment] = variables.transform_values(&:to_s)
  def std_service_path_env = "#{@formula.prefix}/bin:#{@formula.prefix}/sbin:/usr/bin:/bin:/usr/sbin:/sbin"

  KEYS.each { |key| define_method(key) { |value| @facts[key] = value.is_a?(Pathname) ? value.to_s : value } }
  %i[opt_bin etc var].each { |name| define_method(name) { @formula.send(name) } }
end

class Formula
  Fields = %i[desc homepage url sha256 license].freeze
  class << self
    attr_reader :fields, :resources, :dependencies, :service_block, :test_block

    def inherited(formula)
      super
      $formula = formula
      formula.instance_eval { @fields, @resources, @dependencies = {}, [], [] }
    end

    Fields.each { |field| define_method(field) { |value| (@resource || @fields)[field] = value } }
    def depends_on(name) = @dependencies << name
    def service(&block) = @service_block = block
    def test(&block) = @test_block = block

    def resource(name, &block)
      @resource = { name: name }
      instance_eval(&block)
      @resources << @resource
      @resource = nil
    end
  end

  attr_reader :prefix, :libexec, :testpath

  def initialize(libexec, folder)
    @libexec = Pathname(libexec)
    @prefix = Pathname(folder)
    @testpath = Pathname(folder)
  end

  def name = self.class.name.downcase
  def version = self.class.fields[:url][/-(\d+(?:\.\d+)+)\.tar\.gz\z/, 1]
  def bin = libexec/"bin"
  def opt_bin = prefix/"opt"/name/"bin"
  def etc = prefix/"etc"
  def var = prefix/"var"
  def buildpath = prefix/"build"

  def free_port
    TCPServer.open("127.0.0.1", 0) { |server| server.addr[1] }
  end

  def system(*command)
    Kernel.system(*command.map(&:to_s)) || raise("failed: #{command.join(" ")}")
  end

  def spawn(*command) = Process.spawn(*command.map(&:to_s))

  def shell_output(command, status = 0)
    output = `#{command}`
    raise "#{command} ended with #{$?.exitstatus}: #{output}" unless $?.exitstatus == status

    output
  end

  def assert_match(pattern, text)
    raise "#{text.inspect} does not have #{pattern.inspect}" unless text.match?(pattern.is_a?(String) ? Regexp.escape(pattern) : pattern)
  end

  def refute_match(pattern, text)
    raise "#{text.inspect} has #{pattern.inspect}" if text.include?(pattern)
  end

  # Utils: a shell asks click for completions through a variable; an empty answer would be an empty file.
  def generate_completions_from_executable(program, shell_parameter_format:)
    raise "only :click is known here" unless shell_parameter_format == :click

    %w[bash zsh fish].each do |shell|
      variable = "_#{program.basename.to_s.upcase}_COMPLETE"
      text = IO.popen({ variable => "#{shell}_source" }, program.to_s, &:read)
      raise "no completion for #{shell}" unless text.include?(variable)
    end
  end
end

load ARGV[0]
case ARGV[1]
when "facts"
  formula = $formula.new("/brew/libexec", "/brew")
  service = Service.new(formula, &$formula.service_block).facts
  puts JSON.generate({ class: $formula.name, fields: $formula.fields, resources: $formula.resources, service: service,
                       dependencies: $formula.dependencies, version: formula.version, ancestors: $formula.ancestors })
when "install"
  formula = $formula.new(ARGV[2], ARGV[3])
  formula.buildpath.mkpath
  Dir.chdir(formula.buildpath) do
    formula.install
    formula.post_install
  end
when "test"
  ENV["HOME"] = ARGV[3]
  formula = $formula.new(ARGV[2], ARGV[3])
  Dir.chdir(ARGV[3]) { formula.instance_eval(&$formula.test_block) }
end

"""beanstalkd: the broker, its connections, its words."""

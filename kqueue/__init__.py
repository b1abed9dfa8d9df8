"""KQueue: a job queue and job runner on beanstalkd that loses no job."""
